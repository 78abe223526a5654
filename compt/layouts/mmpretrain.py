"""Layouts of mmpretrain: its ViT, masked autoencoders, and the algorithms and classifiers around a
backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity


def _blocks(stack: str) -> dict[str, str]:
    """The patterns of a stack of mmpretrain's TransformerEncoderLayer."""
    block = f"{stack}.{{block}}"
    return {
        f"{block}.ln1.weight": "embed",
        f"{block}.ln1.bias": "embed",
        f"{block}.attn.qkv.weight": "(3 heads head_dim) <- embed",
        f"{block}.attn.qkv.bias": "(3 heads head_dim)",
        f"{block}.attn.proj.weight": f"embed <- (heads head_dim) * {block}.attn.gamma1.weight",
        f"{block}.attn.proj.bias": f"embed * {block}.attn.gamma1.weight",
        f"{block}.attn.gamma1.weight": "scale: embed",
        f"{block}.ln2.weight": "embed",
        f"{block}.ln2.bias": "embed",
        f"{block}.ffn.layers.0.0.weight": "mlp <- embed",
        f"{block}.ffn.layers.0.0.bias": "mlp",
        f"{block}.ffn.layers.1.weight": f"embed <- mlp * {block}.ffn.gamma2.weight",
        f"{block}.ffn.layers.1.bias": f"embed * {block}.ffn.gamma2.weight",
        f"{block}.ffn.gamma2.weight": "scale: embed",
    }


class VisionTransformerLayout(Layout):
    """mmpretrain's VisionTransformer, and MAEViT: positions that are fixed there grow like learnt
    ones.
    """

    patterns = {
        "patch_embed.projection.weight": "patch_embed <- 3 patch patch",
        "patch_embed.projection.bias": "patch_embed",
        "cls_token": "1 1 patch_embed",
        "pos_embed": "1 position patch_embed",
        "pre_norm.weight": "layer_norm_gain: patch_embed -> embed",
        "pre_norm.bias": "layer_norm_bias: patch_embed -> embed",
        **_blocks("layers"),
        "ln1.weight": "embed",
        "ln1.bias": "embed",
        "ln2.weight": "embed",
        "ln2.bias": "embed",
    }
    roles = {"patch_embed": "stream"}

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """The number of heads, which the fused qkv does not tell."""
        return {"heads": module.layers[0].attn.num_heads}  # type: ignore[index, union-attr]

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Without ``pre_norm`` the patches write the residual stream itself."""
        return {"patch_embed": "embed"} if isinstance(module.pre_norm, nn.Identity) else {}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Features of two random images, nothing masked, and how alike they are, which no width
        changes.
        """
        masked = {"mask": None} if hasattr(module, "mask_ratio") else {}
        features = module(_images(module, generator), **masked)[-1]
        normed = module.final_norm or module.out_type == "avg_featmap"
        return {"features": features, **({"similarity": similarity(features)} if normed else {})}


class MaeDecoderLayout(Layout):
    """The decoder of a masked autoencoder: a stream of its own, fed from the encoder's."""

    patterns = {
        "decoder_embed.weight": "embed <- encoder",
        "decoder_embed.bias": "embed",
        "mask_token": "1 1 embed",
        "decoder_pos_embed": "1 position embed",
        **_blocks("decoder_blocks"),
        "ln1.weight": "embed",
        "ln1.bias": "embed",
        "decoder_pred.weight": "pixels <- embed",
        "decoder_pred.bias": "pixels",
    }
    roles = {"encoder": "stream", "pixels": "fixed"}

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """The number of heads."""
        blocks = module.decoder_blocks
        return {"heads": blocks[0].attn.num_heads} if len(blocks) else {}  # type: ignore[arg-type, index, union-attr]

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs | None:
        """Nothing: what it reads grows with the encoder."""
        return None


class SimMimDecoderLayout(Layout):
    """SimMIM's decoder: one projection of the backbone's feature map to pixels."""

    patterns = {"decoder.0.weight": "pixels <- encoder 1 1", "decoder.0.bias": "pixels"}
    roles = {"encoder": "stream", "pixels": "fixed"}


class SelfSupervisorLayout(Layout):
    """Any self-supervised algorithm whose parts have layouts; necks read the backbone as
    ``encoder``.
    """

    parts = ("backbone", "neck", "head", "target_generator")

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """What the neck reads is the backbone's last stream, ``embed`` in all layouts."""
        return {"neck.encoder": "backbone.embed"}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Features of two random images, nothing masked, and how alike they are, which no width
        changes.
        """
        found = module.extract_feat(_images(module.backbone, generator))  # type: ignore[operator, arg-type]
        features = found[-1] if isinstance(found, (tuple, list)) else found
        return {"features": features, "similarity": similarity(features)}


class MaeLayout(SelfSupervisorLayout):
    """A masked autoencoder: encoder and decoder are two streams with their own widths and
    depths.
    """

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Reconstruction of two random images from the first half of their patches."""
        pair = _images(module.backbone, generator)  # type: ignore[arg-type]
        tokens = module.backbone(pair, mask=None)[-1]  # type: ignore[operator]
        patches = tokens.shape[1] - 1
        order = torch.arange(patches, device=pair.device).expand(2, -1)
        return {"pixels": module.neck(tokens[:, : 1 + patches // 2], order)}  # type: ignore[operator]


class SimMimLayout(SelfSupervisorLayout):
    """SimMIM: a masked backbone, and one projection of its map to pixels."""

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Reconstruction of two random images, half of their patches masked."""
        pair = _images(module.backbone, generator)  # type: ignore[arg-type]
        size = module.backbone.patch_embed.init_out_size  # type: ignore[union-attr]
        mask = (torch.rand(2, *size, generator=generator) < 0.5).to(pair)  # type: ignore[misc]
        return {"pixels": module.neck(module.backbone(pair, mask)[-1])}  # type: ignore[operator]


class ImageClassifierLayout(Layout):
    """A classifier on a backbone, with mmpretrain's linear or ViT head."""

    parts = ("backbone",)
    patterns = {
        "head.fc.weight": "classes <- backbone.embed",
        "head.fc.bias": "classes",
        "head.layers.pre_logits.weight": "hidden <- backbone.embed",
        "head.layers.pre_logits.bias": "hidden",
        "head.layers.head.weight": "classes <- last",
        "head.layers.head.bias": "classes",
    }
    roles = {"hidden": "hidden"}

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """The last layer of a ViT's head reads the hidden one, where there is one."""
        hidden = hasattr(getattr(module.head, "layers", None), "pre_logits")
        return {"last": "hidden" if hidden else "backbone.embed"}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Scores of two random images."""
        return {"logits": module(_images(module.backbone, generator))}  # type: ignore[arg-type]


def _images(backbone: nn.Module, generator: torch.Generator) -> Tensor:
    """Two random images [2, 3, H, W] on the backbone's device."""
    size: Any = getattr(backbone, "img_size", None) or backbone.patch_embed.init_input_size  # type: ignore[union-attr]
    return images(backbone, size, generator)
