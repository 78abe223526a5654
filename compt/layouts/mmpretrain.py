"""Layouts of mmpretrain.

They are of its ViT, of masked autoencoders, and of the algorithms and classifiers around a
backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity, tokens_on_grid


def _blocks(stack: str) -> dict[str, str]:
    """Return the patterns of a stack of mmpretrain's TransformerEncoderLayer."""
    block = f"{stack}.{{block}}"
    return {
        f"{block}.ln1.*": "embed",
        f"{block}.attn.qkv.*": "(3 heads head_dim) <- embed",
        f"{block}.attn.proj.*": f"embed <- (heads head_dim) * {block}.attn.gamma1.weight",
        f"{block}.attn.gamma1.weight": "scale: embed",
        f"{block}.ln2.*": "embed",
        f"{block}.ffn.layers.0.0.*": "mlp <- embed",
        f"{block}.ffn.layers.1.*": f"embed <- mlp * {block}.ffn.gamma2.weight",
        f"{block}.ffn.gamma2.weight": "scale: embed",
    }


class VisionTransformerLayout(Layout):
    """The axes of mmpretrain's VisionTransformer and MAEViT.

    Positions that are fixed there grow like learnt ones, as a larger model's own table would be
    another function.
    """

    patterns = {
        "patch_embed.projection.*": "patch_embed <- 3 patch patch",
        "cls_token": "1 1 patch_embed",
        "pre_norm.*": "patch_embed -> embed",
        **_blocks("layers"),
        "ln1.*": "embed",
        "ln2.*": "embed",
    }
    roles = {"patch_embed": "stream"}

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns, with the places of its tokens."""
        places = tokens_on_grid(module.pos_embed.shape[1], module.patch_resolution)
        return {**self.patterns, "pos_embed": f"1 {places} -> patch_embed"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the fused qkv does not tell, and of patches."""
        grid = dict(zip(("height", "width"), module.patch_resolution, strict=True))
        return grid | ({"heads": module.layers[0].attn.num_heads} if len(module.layers) else {})

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the patches write the residual stream itself where no ``pre_norm`` follows."""
        return {"patch_embed": "embed"} if isinstance(module.pre_norm, nn.Identity) else {}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return features of two random images, nothing masked, and how alike they are."""
        masked = {"mask": None} if hasattr(module, "mask_ratio") else {}
        features = module(_images(module, generator), **masked)[-1]
        outputs = {"features": features}
        # only a norm takes scale and pads off the features, so that no width changes their cosines
        if module.final_norm or module.out_type == "avg_featmap":
            outputs["similarity"] = similarity(features)
        return outputs


class MaeDecoderLayout(Layout):
    """The axes of a masked autoencoder's decoder, whose stream is fed from the encoder's."""

    patterns = {
        "decoder_embed.*": "embed <- encoder",
        "mask_token": "1 1 embed",
        "decoder_pos_embed": "1 (1 | height width) -> embed",
        **_blocks("decoder_blocks"),
        "ln1.*": "embed",
        "decoder_pred.*": "pixels <- embed",
    }
    roles = {"encoder": "stream", "pixels": "fixed"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, unless there are no blocks, and of a square's patches."""
        blocks, edge = module.decoder_blocks, isqrt(module.decoder_pos_embed.shape[1] - 1)
        grid = {"height": edge, "width": edge}
        return grid | ({"heads": blocks[0].attn.num_heads} if len(blocks) else {})

    def probe(self, module: Any, generator: torch.Generator) -> Outputs | None:
        """Return nothing, as what the decoder reads grows with the encoder."""
        return None


class SimMimDecoderLayout(Layout):
    """The axes of SimMIM's decoder, one projection of the backbone's feature map to pixels."""

    patterns = {"decoder.0.*": "pixels <- encoder 1 1"}
    roles = {"encoder": "stream", "pixels": "fixed"}


class SelfSupervisorLayout(Layout):
    """The axes of a self-supervised algorithm whose parts have layouts.

    Necks read the backbone as ``encoder``.
    """

    parts = ("backbone", "neck", "head", "target_generator")

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the neck reads the backbone's last stream, ``embed`` in all layouts."""
        return {"neck.encoder": "backbone.embed"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return features of two random images, nothing masked, and how alike they are."""
        features = module.extract_feat(_images(module.backbone, generator))
        if isinstance(features, (tuple, list)):
            features = features[-1]
        return {"features": features, "similarity": similarity(features)}


class MaeLayout(SelfSupervisorLayout):
    """The axes of a masked autoencoder.

    Encoder and decoder are two streams with their own widths and depths.
    """

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the reconstruction of two random images from the first half of their patches."""
        pair = _images(module.backbone, generator)
        tokens = module.backbone(pair, mask=None)[-1]
        num_patches = tokens.shape[1] - 1
        order = torch.arange(num_patches, device=pair.device).expand(2, -1)
        return {"pixels": module.neck(tokens[:, : 1 + num_patches // 2], order)}


class SimMimLayout(SelfSupervisorLayout):
    """The axes of SimMIM, a masked backbone with one projection of its map to pixels."""

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the reconstruction of two random images, half of their patches masked."""
        pair = _images(module.backbone, generator)
        size = module.backbone.patch_embed.init_out_size
        mask = (torch.rand(2, *size, generator=generator) < 0.5).to(pair)
        return {"pixels": module.neck(module.backbone(pair, mask)[-1])}


class ImageClassifierLayout(Layout):
    """The axes of a classifier on a backbone, with mmpretrain's linear or ViT head."""

    parts = ("backbone",)
    patterns = {
        "head.fc.*": "classes <- backbone.embed",
        "head.layers.pre_logits.*": "hidden <- backbone.embed",
        "head.layers.head.*": "classes <- last",
    }
    roles = {"hidden": "hidden"}

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the last layer of a ViT's head reads the hidden one, where there is one."""
        hidden = hasattr(getattr(module.head, "layers", None), "pre_logits")
        return {"last": "hidden" if hidden else "backbone.embed"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the scores of two random images."""
        return {"logits": module(_images(module.backbone, generator))}


def _images(backbone: Any, generator: torch.Generator) -> Tensor:
    """Return two random images [2, 3, H, W] on the backbone's device."""
    size = getattr(backbone, "img_size", None) or backbone.patch_embed.init_input_size
    return images(backbone, size, generator)
