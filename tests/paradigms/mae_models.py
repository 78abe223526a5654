"""Small masked autoencoders and what belongs beside them, and their batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

pytest.importorskip("mmpretrain")
pytest.importorskip("timm")
pytest.importorskip("sklearn")

import timm
from mmpretrain.structures import DataSample

from compt.interfaces import Member
from compt.paradigms.mae import Mae
from compt.paradigms.mae.mmpretrain import MODELS, default_preprocessor, scope
from compt.testing.contracts import randomised

PREPROCESSOR = default_preprocessor(dict(type="mmpretrain.MAE"))
SIZE, PATCH = 32, 8
PATCHES = (SIZE // PATCH) ** 2


def vit(
    width: int = 32,
    layers: int = 2,
    *,
    type: str = "VisionTransformer",
    size: int = SIZE,
    **options,
) -> dict:
    arch = dict(
        embed_dims=width, num_layers=layers, num_heads=width // 16, feedforward_channels=3 * width
    )
    return {
        "type": f"mmpretrain.{type}",
        "arch": arch,
        "img_size": size,
        "patch_size": PATCH,
        **options,
    }


def mae(
    width: int = 32, layers: int = 2, decoder: int = 16, decoder_layers: int = 1, **options
) -> dict:
    """Return an MAE around a ViT of ``options``.

    The decoder's heads are 16 wide, like the encoder's.
    """
    size = options.get("size", SIZE)
    return dict(
        type="mmpretrain.MAE",
        backbone=vit(width, layers, type="MAEViT", **options),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            num_patches=(size // PATCH) ** 2,
            patch_size=PATCH,
            embed_dim=width,
            decoder_embed_dim=decoder,
            decoder_depth=decoder_layers,
            decoder_num_heads=decoder // 16,
        ),
        head=dict(
            type="mmpretrain.MAEPretrainHead",
            norm_pix=True,
            patch_size=PATCH,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
        ),
    )


def classifier(width: int = 32, layers: int = 2, *, classes: int = 3, **options) -> dict:
    loss = dict(type="mmpretrain.CrossEntropyLoss")
    head = dict(
        type="mmpretrain.VisionTransformerClsHead",
        num_classes=classes,
        in_channels=width,
        loss=loss,
    )
    if options.get("out_type") == "avg_featmap":
        head["type"] = "mmpretrain.LinearClsHead"
    return dict(
        type="mmpretrain.ImageClassifier", backbone=vit(width, layers, **options), head=head
    )


def simmim(width: int = 8, depth: int = 1) -> dict:
    """Return SimMIM on a Swin of two stages.

    14 x 14 patches of 4 pixels, windows of 7.
    """
    arch = dict(embed_dims=width, depths=[depth, 1], num_heads=[width // 8, width // 4])
    return dict(
        type="mmpretrain.SimMIM",
        backbone=dict(
            type="mmpretrain.SimMIMSwinTransformer", arch=arch, img_size=56, out_indices=(1,)
        ),
        neck=dict(type="mmpretrain.SimMIMLinearDecoder", in_channels=2 * width, encoder_stride=8),
        head=dict(
            type="mmpretrain.SimMIMHead",
            patch_size=4,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L1", channel=3),
        ),
    )


def moco(width: int = 32) -> dict:
    """Return MoCo v3 on a ViT, which takes two views of every image."""

    def projector(inputs: int, layers: int) -> dict:
        sizes = dict(in_channels=inputs, hid_channels=24, out_channels=16, num_layers=layers)
        return dict(
            type="mmpretrain.NonLinearNeck",
            with_avg_pool=False,
            norm_cfg=dict(type="BN1d"),
            **sizes,
        )

    loss = dict(type="mmpretrain.CrossEntropyLoss")
    return dict(
        type="mmpretrain.MoCoV3",
        backbone=vit(width, type="MoCoV3ViT"),
        neck=projector(width, 3),
        head=dict(
            type="mmpretrain.MoCoV3Head", predictor=projector(16, 2), temperature=0.2, loss=loss
        ),
    )


MOCO_PIPELINE = [
    dict(type="MultiView", num_views=[2], transforms=[[dict(type="RandomResizedCrop", scale=32)]]),
    dict(type="PackInputs"),
]
SIMMIM_MASK = dict(type="SimMIMMaskGenerator", input_size=56, mask_patch_size=8, model_patch_size=4)
SIMMIM_PIPELINE = [dict(type="Resize", scale=(56, 56)), SIMMIM_MASK, dict(type="PackInputs")]


def made(model: Any = None, *, seed: int = 0, **options) -> tuple[Mae, nn.Module]:
    """A paradigm and a model of it with random gains, biases and tokens, in eval mode."""
    paradigm = Mae(**options)
    return paradigm, built(paradigm, model or mae(), seed=seed)


def built(paradigm: Mae, model: Any, *, seed: int = 0, name: str = "a") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = randomised(paradigm.build_model(Member(name, model)), scale=0.05)
    fresh.eval()
    return fresh


def doubled(config: dict) -> nn.Module:
    """A model, or a backbone alone, in float64 with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if "backbone" in config:
            return Mae().build_model(Member("a", config)).double()
        with scope():
            model = MODELS.build(config)
        model.init_weights()
        return model.double()


def theirs(model: nn.Module) -> nn.Module:
    """The same model as mmpretrain builds it, and nobody else's hand on it."""
    with scope():
        other = MODELS.build(model.mmpretrain_config)
    other.load_state_dict(model.state_dict())
    other.eval()
    return other


def samples(labels) -> list[DataSample]:
    return [DataSample() if label is None else DataSample().set_gt_label(label) for label in labels]


def timm_args(width: int = 32, depth: int = 2) -> dict:
    """What makes timm's ViT one of :func:`vit`."""
    sizes = dict(embed_dim=width, depth=depth, num_heads=width // 16, mlp_ratio=3)
    return dict(img_size=SIZE, patch_size=PATCH, **sizes)


def timm_vit(width: int = 32, depth: int = 2, *, num_classes: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        args = timm_args(width, depth)
        return timm.create_model("vit_base_patch16_224", num_classes=num_classes, **args).eval()


def timm_folder(folder: Path, model: nn.Module) -> Path:
    """A folder as timm's hub has them."""
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = dict(
        architecture="vit_base_patch16_224",
        num_classes=model.num_classes,
        num_features=model.embed_dim,
        model_args=timm_args(model.embed_dim, len(model.blocks)),
        pretrained_cfg=dict(input_size=[3, SIZE, SIZE], mean=[0.1, 0.2, 0.3], license="apache-2.0"),
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def raw(count: int = 4, *, seed: int = 0, size: int = SIZE, labels=None) -> dict[str, Any]:
    """Return a batch of noise as the data loader gives it, uint8 [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return {"inputs": inputs, "data_samples": samples(labels or [None] * count)}


def prepared(paradigm: Mae, batch, seed: int = 0):
    return paradigm.prepare(batch, generator=torch.Generator().manual_seed(seed))


def normalised(images: Tensor) -> Tensor:
    """RGB [B, 3, H, W] as the models read it."""
    mean, std = (torch.tensor(PREPROCESSOR[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images.float() - mean) / std


def image_folder(
    folder: Path, classes=("cat", "dog"), count: int = 8, size: int = 40, seed: int = 0
) -> Path:
    """Noise around a brightness that tells the class, ``count`` of each in a sub-folder."""
    random = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 60, (size, size + 3, 3)) + 190 * number // max(
                1, len(classes) - 1
            )
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder
