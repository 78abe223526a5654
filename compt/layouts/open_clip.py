"""Layouts of open_clip's models.

They are of CLIP, of its own image and text towers, and of timm models as image tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images

BLOCK = "transformer.resblocks.{block}"
BLOCKS: Mapping[str, str] = {
    f"{BLOCK}.ln_1.weight": "embed",
    f"{BLOCK}.ln_1.bias": "embed",
    f"{BLOCK}.attn.in_proj_weight": "(3 heads head_dim) <- embed",
    f"{BLOCK}.attn.in_proj_bias": "(3 heads head_dim)",
    f"{BLOCK}.attn.ln_q.weight": "head_dim",
    f"{BLOCK}.attn.ln_q.bias": "head_dim",
    f"{BLOCK}.attn.ln_k.weight": "head_dim",
    f"{BLOCK}.attn.ln_k.bias": "head_dim",
    f"{BLOCK}.attn.head_scale": "scale: heads 1 1",
    f"{BLOCK}.attn.logit_scale": "scale: heads 1 1",
    f"{BLOCK}.attn.out_proj.weight": f"embed <- (heads head_dim) * {BLOCK}.ls_1.gamma",
    f"{BLOCK}.attn.out_proj.bias": f"embed * {BLOCK}.ls_1.gamma",
    f"{BLOCK}.ls_1.gamma": "scale: embed",
    f"{BLOCK}.ln_2.weight": "embed",
    f"{BLOCK}.ln_2.bias": "embed",
    f"{BLOCK}.mlp.c_fc.weight": "mlp <- embed",
    f"{BLOCK}.mlp.c_fc.bias": "mlp",
    f"{BLOCK}.mlp.ln.weight": "mlp",
    f"{BLOCK}.mlp.ln.bias": "mlp",
    f"{BLOCK}.mlp.c_proj.weight": f"embed <- mlp * {BLOCK}.ls_2.gamma",
    f"{BLOCK}.mlp.c_proj.bias": f"embed * {BLOCK}.ls_2.gamma",
    f"{BLOCK}.ls_2.gamma": "scale: embed",
}
TEXT: Mapping[str, str] = {
    "token_embedding.weight": "vocab -> embed",
    "positional_embedding": "position -> embed",
    "cls_emb": "embed",
    **BLOCKS,
    "ln_final.weight": "embed",
    "ln_final.bias": "embed",
    "text_projection": "embed -> feature",
    "text_projection.weight": "feature <- embed",
    "text_projection.bias": "feature",
}
SCALARS: Mapping[str, str] = {"logit_scale": "", "logit_bias": ""}


def _heads(module: Any) -> dict[str, int]:
    """Return the number of heads, which fused projections do not tell, of a tower with blocks."""
    blocks = module.transformer.resblocks
    return {"heads": blocks[0].attn.num_heads} if len(blocks) else {}


class VisionTransformerLayout(Layout):
    """The axes of open_clip's own image tower.

    Patches, class token and positions, before ``ln_pre``, are a stream of their own.
    """

    patterns = {
        "conv1.weight": "patch_embed <- 3 patch patch",
        "class_embedding": "patch_embed",
        "positional_embedding": "position -> patch_embed",
        "ln_pre.weight": "layer_norm_gain: patch_embed -> embed",
        "ln_pre.bias": "layer_norm_bias: patch_embed -> embed",
        **BLOCKS,
        "ln_post.weight": "embed",
        "ln_post.bias": "embed",
        "proj": "embed -> feature",
    }
    roles = {"patch_embed": "stream"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads."""
        return _heads(module)

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the patches write the residual stream itself where no ``ln_pre`` follows."""
        return {"patch_embed": "embed"} if isinstance(module.ln_pre, nn.Identity) else {}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the features of two random images."""
        features = module(_images(module, generator))
        return {"features": features[0] if isinstance(features, tuple) else features}


class TextTransformerLayout(Layout):
    """The axes of open_clip's own text tower as a module (``custom_text``)."""

    patterns = TEXT

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads."""
        return _heads(module)

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the features of two random texts."""
        features = module(_tokens(module, generator))
        return {"features": features[0] if isinstance(features, tuple) else features}


class TimmModelLayout(Layout):
    """The axes of a timm model as image tower.

    The trunk has a layout of its own, and the head projects its features.
    """

    parts = ("trunk",)
    patterns = {
        "head.proj.weight": "feature <- trunk.embed",
        "head.proj.bias": "feature",
        "head.mlp.fc1.weight": "mlp <- trunk.embed",
        "head.mlp.fc1.bias": "mlp",
        "head.mlp.fc2.weight": "feature <- mlp",
        "head.mlp.fc2.bias": "feature",
    }
    roles = {"feature": "output"}

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the trunk's classifier makes the features.

        It does so where the tower has no projection.
        """
        return {"trunk.classes": "feature"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the features of two random images."""
        return {"features": module(_images(module, generator))}


class ClipLayout(Layout):
    """The axes of open_clip's CLIP.

    The image tower is under ``visual``, the text tower at the root, and they share one feature
    space.
    """

    parts = ("visual",)
    patterns = {**TEXT, **SCALARS}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads of the text tower."""
        return _heads(module)

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that image and text features are compared, and so one axis."""
        return {"visual.feature": "feature"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return unit features and logits of two random images and texts."""
        return _probe_clip(module, generator)


class CustomTextClipLayout(Layout):
    """The axes of open_clip's CustomTextCLIP, whose two towers are parts."""

    parts = ("text", "visual")  # where they share an axis, the later one says how it grows
    patterns = SCALARS

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say which axes image and text features share.

        Where nothing projects the images, as in SigLIP, texts are projected into their stream.
        """
        trunk, head = (getattr(module.visual, name, None) for name in ("trunk", "head"))
        if trunk is not None and _is_empty(head) and isinstance(trunk.head, nn.Identity):
            return {"text.feature": "visual.trunk.embed"}
        return {"visual.feature": "feature", "text.feature": "feature"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return unit features and logits of two random images and texts."""
        return _probe_clip(module, generator)


def _is_empty(head: nn.Module | None) -> bool:
    """Return whether the head of a timm tower projects nothing."""
    return isinstance(head, nn.Sequential) and not len(head)


def _probe_clip(module: Any, generator: torch.Generator) -> Outputs:
    """Return unit features [2, E] and logits [2, 2] of two random images and texts."""
    image = F.normalize(module.encode_image(_images(module.visual, generator)), dim=-1)
    text = F.normalize(module.encode_text(_tokens(module, generator)), dim=-1)
    logits = module.logit_scale.exp() * image @ text.T
    bias = getattr(module, "logit_bias", None)
    return {
        "image_features": image,
        "text_features": text,
        "logits": logits if bias is None else logits + bias,
    }


def _images(tower: Any, generator: torch.Generator) -> Tensor:
    """Return two random images [2, 3, H, W] on the tower's device."""
    return images(tower, tower.image_size, generator)


def _tokens(module: Any, generator: torch.Generator) -> Tensor:
    """Return two random texts [2, context] that end with the highest token, as a tokenizer's do."""
    length, vocab = module.context_length, module.vocab_size
    tokens = torch.randint(1, vocab - 1, (2, length), generator=generator)
    tokens[:, length // 2 :] = 0
    tokens[:, length // 2] = vocab - 1
    return tokens.to(next(module.parameters()).device)
