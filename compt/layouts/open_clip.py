"""Layouts of open_clip's models: CLIP, its own image and text towers, and timm models as image
tower.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images

# fmt: off
BLOCKS: Mapping[str, str] = {
    "transformer.resblocks.{block}.ln_1.weight": "embed",
    "transformer.resblocks.{block}.ln_1.bias": "embed",
    "transformer.resblocks.{block}.attn.in_proj_weight": "(3 heads head_dim) <- embed",
    "transformer.resblocks.{block}.attn.in_proj_bias": "(3 heads head_dim)",
    "transformer.resblocks.{block}.attn.ln_q.weight": "head_dim",
    "transformer.resblocks.{block}.attn.ln_q.bias": "head_dim",
    "transformer.resblocks.{block}.attn.ln_k.weight": "head_dim",
    "transformer.resblocks.{block}.attn.ln_k.bias": "head_dim",
    "transformer.resblocks.{block}.attn.head_scale": "scale: heads 1 1",
    "transformer.resblocks.{block}.attn.logit_scale": "scale: heads 1 1",
    "transformer.resblocks.{block}.attn.out_proj.weight":
        "embed <- (heads head_dim) * transformer.resblocks.{block}.ls_1.gamma",
    "transformer.resblocks.{block}.attn.out_proj.bias": "embed * transformer.resblocks.{block}.ls_1.gamma",
    "transformer.resblocks.{block}.ls_1.gamma": "scale: embed",
    "transformer.resblocks.{block}.ln_2.weight": "embed",
    "transformer.resblocks.{block}.ln_2.bias": "embed",
    "transformer.resblocks.{block}.mlp.c_fc.weight": "mlp <- embed",
    "transformer.resblocks.{block}.mlp.c_fc.bias": "mlp",
    "transformer.resblocks.{block}.mlp.ln.weight": "mlp",
    "transformer.resblocks.{block}.mlp.ln.bias": "mlp",
    "transformer.resblocks.{block}.mlp.c_proj.weight": "embed <- mlp * transformer.resblocks.{block}.ls_2.gamma",
    "transformer.resblocks.{block}.mlp.c_proj.bias": "embed * transformer.resblocks.{block}.ls_2.gamma",
    "transformer.resblocks.{block}.ls_2.gamma": "scale: embed",
}
# fmt: on
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


def _heads(module: nn.Module) -> dict[str, int]:
    """The number of heads, which fused projections do not tell."""
    return {"heads": module.transformer.resblocks[0].attn.num_heads}  # type: ignore[union-attr, index]


class VisionTransformerLayout(Layout):
    """open_clip's own image tower; what stands before ``ln_pre`` is a stream of its own."""

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

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """Heads, and the width before ``ln_pre``."""
        return _heads(module)

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Without ``ln_pre`` the patches write the residual stream itself."""
        return {"patch_embed": "embed"} if isinstance(module.ln_pre, nn.Identity) else {}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Features of two random images."""
        features = module(_images(module, generator))
        return {"features": features[0] if isinstance(features, tuple) else features}


class TextTransformerLayout(Layout):
    """open_clip's own text tower as a module (``custom_text``)."""

    patterns = TEXT

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """Heads."""
        return _heads(module)

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Features of two random texts."""
        features = module(_tokens(module, generator))
        return {"features": features[0] if isinstance(features, tuple) else features}


class TimmModelLayout(Layout):
    """A timm model as image tower: the trunk has a layout of its own, the head projects its
    features.
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

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Without a projection of its own, the trunk's classifier makes the features."""
        return {"trunk.classes": "feature"}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Features of two random images."""
        return {"features": module(_images(module, generator))}


class ClipLayout(Layout):
    """open_clip's CLIP: image tower under ``visual``, text tower at the root, one feature space for
    both.
    """

    parts = ("visual",)
    patterns = {**TEXT, **SCALARS}

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """Heads of the text tower."""
        return _heads(module)

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Image and text features meet."""
        return {"visual.feature": "feature"}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Unit image and text features and logits of two random images and texts."""
        return _probe_clip(module, generator)


class CustomTextClipLayout(Layout):
    """open_clip's CustomTextCLIP: both towers are parts."""

    parts = ("text", "visual")  # where they share an axis, the later one says how it grows
    patterns = SCALARS

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Image and text features meet."""
        trunk, head = (getattr(module.visual, name, None) for name in ("trunk", "head"))
        bare = (
            isinstance(head, nn.Sequential)
            and not len(head)
            and isinstance(trunk.head, nn.Identity)
        )  # type: ignore[union-attr]
        if bare:  # as SigLIP: images are not projected
            return {"text.feature": "visual.trunk.embed"}
        return {"visual.feature": "feature", "text.feature": "feature"}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Unit image and text features and logits of two random images and texts."""
        return _probe_clip(module, generator)


def _probe_clip(module: nn.Module, generator: torch.Generator) -> Outputs:
    image = F.normalize(module.encode_image(_images(module.visual, generator)), dim=-1)  # type: ignore[operator, arg-type]
    text = F.normalize(module.encode_text(_tokens(module, generator)), dim=-1)  # type: ignore[operator]
    logits = module.logit_scale.exp() * image @ text.T  # type: ignore[operator]
    bias = getattr(module, "logit_bias", None)
    return {
        "image_features": image,
        "text_features": text,
        "logits": logits if bias is None else logits + bias,
    }


def _images(tower: nn.Module, generator: torch.Generator) -> Tensor:
    """Two random images [2, 3, H, W] on the tower's device."""
    return images(tower, tower.image_size, generator)  # type: ignore[arg-type]


def _tokens(module: nn.Module, generator: torch.Generator) -> Tensor:
    """Two random texts [2, context] that end with the highest token, as the tokenizer's do."""
    length, vocab = module.context_length, module.vocab_size
    tokens = torch.randint(1, vocab - 1, (2, length), generator=generator)  # type: ignore[arg-type, operator]
    tokens[:, length // 2 :] = 0  # type: ignore[operator]
    tokens[:, length // 2] = vocab - 1  # type: ignore[operator]
    return tokens.to(next(module.parameters()).device)
