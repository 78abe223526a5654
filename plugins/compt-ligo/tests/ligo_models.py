"""Small models of every paradigm, and losses of them with given parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from compt.testing.toy import Toy, ToyNet

Loss = Callable[[nn.Module], Tensor]


def noisy(module: nn.Module, scale: float = 0.2) -> nn.Module:
    """Add noise to every parameter, so that no gain is 1 and no bias 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in module.parameters():
            param.add_(
                scale * torch.randn(param.shape, generator=generator, dtype=torch.float64).to(param)
            )
    return module


def copies(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


class Called(nn.Module):
    """A module whose ``forward`` calls a function of another module.

    ``functional_call`` needs one to run more than the other module's own ``forward``.
    """

    def __init__(self, module: nn.Module, function: Loss) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self) -> Tensor:
        """What the function returns."""
        return self.function(self.module)


class Objective:
    """The loss of a module with given parameters.

    It keeps all losses and the last parameters.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        self.called = Called(module.eval(), loss)
        self.losses: list[float] = []
        self.params: Mapping[str, Tensor] = {}

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss."""
        self.params = params
        loss = functional_call(
            self.called, {f"module.{name}": value for name, value in params.items()}, ()
        )
        self.losses.append(loss.item())
        return loss


def toy_batch() -> tuple[Tensor, Tensor]:
    """The toy's training points, [512, 8] and [512]."""
    points, labels = Toy().build_dataset("train").tensors  # type: ignore[attr-defined]
    return points, labels


def toy_loss(module: nn.Module) -> Tensor:
    """Cross entropy on the whole of the toy's training set."""
    points, labels = toy_batch()
    return F.cross_entropy(module(points.to(next(module.parameters()))), labels)


def trained_toy(width: int, depth: int) -> nn.Module:
    """A ToyNet that has learned something, free to change."""
    return copy.deepcopy(_trained_toy(width, depth))


@cache
def _trained_toy(width: int, depth: int) -> nn.Module:
    torch.manual_seed(0)
    module = ToyNet(width, depth, dropout=0.0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        toy_loss(module).backward()
        optimizer.step()
    return module


def llama(width: int, layers: int, heads: int, kv: int, mlp: int, **options: Any) -> nn.Module:
    """A Llama with its head tied to the embedding, unless ``options`` say otherwise."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=16,
        max_position_embeddings=64,
        use_cache=False,
        **{"tie_word_embeddings": True, **options},
    )
    torch.manual_seed(width)
    return transformers.LlamaForCausalLM(config)


def llama_loss(module: nn.Module) -> Tensor:
    """Cross entropy of the next of random tokens."""
    tokens = torch.randint(61, (4, 17), generator=torch.Generator().manual_seed(0))
    logits = module(tokens[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def clip(width: int, layers: int, *, features: int, **vision: Any) -> nn.Module:
    """An open_clip CLIP with towers of equal size."""
    model = pytest.importorskip("open_clip.model")
    torch.manual_seed(width)
    image = dict(image_size=32, patch_size=16, width=width, layers=layers, head_width=16, **vision)
    text = dict(context_length=10, vocab_size=99, width=width, layers=layers, heads=width // 16)
    return model.CLIP(features, image, text)


def clip_loss(module: nn.Module) -> Tensor:
    """Contrastive loss of random images and texts."""
    generator, weight = torch.Generator().manual_seed(0), next(module.parameters())
    images = torch.randn(4, 3, 32, 32, generator=generator).to(weight)
    texts = torch.randint(1, 98, (4, 10), generator=generator)
    texts[:, -1] = 98
    logits, _ = module.get_logits(images, texts)  # type: ignore[operator]
    return F.cross_entropy(logits, torch.arange(4))


def mae(width: int, depth: int, decoder_width: int, decoder_depth: int) -> nn.Module:
    """An mmpretrain masked autoencoder, with layer scale in its encoder."""
    pytest.importorskip("mmpretrain")
    from compt import Member
    from compt.paradigms.mae import Mae

    arch = dict(
        embed_dims=width, num_layers=depth, num_heads=width // 16, feedforward_channels=3 * width
    )
    layer_scale = dict(layer_cfgs=dict(layer_scale_init_value=0.1))
    decoder = dict(
        decoder_embed_dim=decoder_width,
        decoder_depth=decoder_depth,
        decoder_num_heads=decoder_width // 16,
    )
    loss = dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2")
    model = dict(
        type="mmpretrain.MAE",
        backbone=dict(
            type="mmpretrain.MAEViT", arch=arch, img_size=32, patch_size=8, **layer_scale
        ),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            num_patches=16,
            patch_size=8,
            embed_dim=width,
            **decoder,
        ),
        head=dict(type="mmpretrain.MAEPretrainHead", norm_pix=True, patch_size=8, loss=loss),
    )
    torch.manual_seed(width)
    return Mae().build_model(Member("mae", model))


def mae_loss(module: nn.Module) -> Tensor:
    """Reconstruction error of two random images, the second half of each hidden."""
    weight = next(module.parameters())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(weight)
    tokens = module.backbone(images, mask=None)[-1]  # type: ignore[operator]
    pixels = module.neck(tokens[:, :9], torch.arange(16).expand(2, -1))  # type: ignore[operator]
    return F.mse_loss(pixels, module.head.patchify(images))  # type: ignore[operator, union-attr]


def vit(width: int, depth: int, **options: Any) -> nn.Module:
    """A timm ViT with layer scale, q/k norms and a classifier."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(width)
    options = {"init_values": 0.1, "qk_norm": True, **options}
    return timm.models.vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=16,
        embed_dim=width,
        depth=depth,
        num_heads=width // 16,
        num_classes=7,
        **options,
    )


def vit_loss(module: nn.Module) -> Tensor:
    """Cross entropy of random images."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(
        next(module.parameters())
    )
    return F.cross_entropy(module(images), torch.arange(4))
