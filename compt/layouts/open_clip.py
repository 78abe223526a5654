"""Layouts of open_clip's models.

They are of CLIP and CoCa, of its own image and text towers, and of timm's and transformers' models
as towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.interfaces import Layout, Outputs, Role, Unit
from compt.layouts._probes import images, tokens_on_grid

HEADS = "(heads head_dim)"


def _blocks(block: str) -> dict[str, str]:
    """Return the patterns of a stack of open_clip's blocks, given the name of one."""
    return {
        f"{block}.ln_1.*": "embed",
        f"{block}.ln_1_kv.*": "image",
        f"{block}.attn.in_proj_weight": "(3 heads head_dim) <- embed",
        f"{block}.attn.in_proj_bias": "(3 heads head_dim)",
        f"{block}.attn.ln_q.*": "head_dim",
        f"{block}.attn.ln_k.*": "head_dim",
        f"{block}.attn.head_scale": "scale: heads 1 1",
        f"{block}.attn.logit_scale": "scale: heads 1 1",
        f"{block}.attn.out_proj.*": f"embed <- {HEADS} * {block}.ls_1.gamma",
        f"{block}.ls_1.gamma": "scale: embed",
        f"{block}.ln_2.*": "embed",
        f"{block}.mlp.c_fc.*": "mlp <- embed",
        f"{block}.mlp.ln.*": "mlp",
        f"{block}.mlp.c_proj.*": f"embed <- mlp * {block}.ls_2.gamma",
        f"{block}.ls_2.gamma": "scale: embed",
    }


BLOCKS: Mapping[str, str] = _blocks("transformer.resblocks.{block}")
TEXT: Mapping[str, str] = {
    "token_embedding.weight": "vocab -> embed",
    "positional_embedding": "position -> embed",
    "cls_emb": "embed",
    **BLOCKS,
    "ln_final.*": "embed",
    "text_projection": "embed -> feature",
    "text_projection.*": "feature <- embed",
}
SCALARS: Mapping[str, str] = {"logit_scale": "", "logit_bias": ""}
MAX_TOKENS = 77


def _heads(module: Any) -> dict[str, int]:
    """Return the number of heads, which fused projections do not tell, of a tower with blocks."""
    blocks = module.transformer.resblocks
    return {"heads": blocks[0].attn.num_heads} if len(blocks) else {}


POOL_HEADS = "(pool_heads pool_head_dim)"
POOLED: Mapping[str, str] = {
    "attn_pool.query": "query -> pooled",
    "attn_pool.ln_q.*": "pooled",
    "attn_pool.ln_k.*": "embed",
    "attn_pool.attn.q_proj_weight": f"{POOL_HEADS} <- pooled",
    "attn_pool.attn.k_proj_weight": f"{POOL_HEADS} <- embed",
    "attn_pool.attn.v_proj_weight": f"{POOL_HEADS} <- embed",
    "attn_pool.attn.in_proj_bias": "(3 pool_heads pool_head_dim)",
    "attn_pool.attn.out_proj.*": f"pooled <- {POOL_HEADS}",
    "ln_post.*": "pooled -> image",
    "proj": "image -> feature",
}
"""Of an attention that makes CoCa's image tokens, which a decoder of text reads."""


class VisionTransformerLayout(Layout):
    """The axes of open_clip's own image tower.

    Patches, class token and positions, before ``ln_pre``, are a stream of their own.
    """

    patterns = {
        "conv1.weight": "patch_embed <- 3 patch patch",
        "class_embedding": "patch_embed",
        "ln_pre.*": "patch_embed -> embed",
        **BLOCKS,
        "ln_post.*": "embed",
        "proj": "embed -> feature",
    }
    roles: Mapping[str, Role | Unit] = {
        "patch_embed": "stream",
        "pooled": "stream",
        "image": "stream",
        "pool_heads": "hidden",
        "pool_head_dim": "channels",
        "query": "fixed",
    }

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns, with the places of its tokens, and of the attention that pools."""
        places = tokens_on_grid(len(module.positional_embedding), module.grid_size)
        own = {**self.patterns, "positional_embedding": f"{places} -> patch_embed"}
        return own if module.attn_pool is None else {**own, **POOLED}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the numbers of heads and of patches."""
        grid = dict(zip(("height", "width"), module.grid_size, strict=True))
        pool = module.attn_pool
        return _heads(module) | grid | ({"pool_heads": pool.attn.num_heads} if pool else {})

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


class HfTextEncoderLayout(Layout):
    """The axes of one of transformers' encoders as text tower.

    The encoder has a layout of its own, and one or two layers project its features.
    """

    parts = ("transformer",)
    patterns = {
        "proj.weight": "feature <- transformer.embed",
        "proj.0.weight": "mlp <- transformer.embed",
        "proj.2.weight": "feature <- mlp",
    }

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say what the tower reads, as an own text tower does."""
        return {"transformer.vocab": "vocab"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the features of two random texts."""
        features = module(_tokens(module, generator))
        return {"features": features[0] if isinstance(features, tuple) else features}


class TextDecoderLayout(Layout):
    """The axes of CoCa's decoder, whose blocks read text and image tokens in turns."""

    patterns = {
        **_blocks("resblocks.{block}"),
        **_blocks("cross_attn.{block}"),
        "ln_final.*": "embed",
        "text_projection": "embed -> vocab",
    }
    roles = {"image": "stream"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads."""
        return {"heads": module.resblocks[0].attn.num_heads} if len(module.resblocks) else {}


class TimmModelLayout(Layout):
    """The axes of a timm model as image tower.

    The trunk has a layout of its own, and the head projects its features.
    """

    parts = ("trunk",)
    patterns = {
        "head.proj.*": "feature <- trunk.embed",
        "head.mlp.fc1.*": "mlp <- trunk.embed",
        "head.mlp.fc2.*": "feature <- mlp",
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
    roles = {"compared": "stream"}
    whole = frozenset({"compared"})

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say which axes image and text features share.

        Where nothing projects the images, as in SigLIP, texts are projected into their stream.
        Lengths and products are then those of copies and pads.
        """
        trunk, head = (getattr(module.visual, name, None) for name in ("trunk", "head"))
        if trunk is not None and _is_empty(head) and isinstance(trunk.head, nn.Identity):
            return {"text.feature": "compared", "visual.trunk.embed": "compared"}
        return {"visual.feature": "feature", "text.feature": "feature"}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return unit features and logits of two random images and texts."""
        return _probe_clip(module, generator)


class CoCaLayout(Layout):
    """The axes of open_clip's CoCa, whose decoder goes on with the text tower's stream.

    It reads as wide a stream of image tokens in one layer with the text's, so that the two grow
    alike. A norm of the image tower writes that of images.
    """

    parts = ("text", "visual", "text_decoder")
    patterns = SCALARS

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say what image tower, text tower and decoder share."""
        own = hasattr(module.text, "token_embedding")
        stream = "text.embed" if own else "text.transformer.embed"
        return {
            "visual.feature": "feature",
            "text.feature": "feature",
            "text.vocab": "vocab",
            "text_decoder.vocab": "vocab",
            "text_decoder.embed": stream,
            "text_decoder.image": stream,
            "visual.image": stream,
        }

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return unit features, their logits, and those of the next tokens, of two samples."""
        features = _probe_clip(module, generator)
        image, tokens = _images(module.visual, generator), _tokens(module.text, generator)
        return {**features, "next_tokens": module(image, tokens)["logits"]}


def _is_empty(head: nn.Module | None) -> bool:
    """Return whether the head of a timm tower projects nothing."""
    return isinstance(head, nn.Sequential) and not len(head)


def _probe_clip(module: Any, generator: torch.Generator) -> Outputs:
    """Return unit features [2, E] and logits [2, 2] of two random images and texts."""
    image = F.normalize(module.encode_image(_images(module.visual, generator)), dim=-1)
    tokens = _tokens(getattr(module, "text", module), generator)
    text = F.normalize(module.encode_text(tokens), dim=-1)
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
    """Return two random texts that end with the highest token, as a tokenizer's do.

    They are [2, context], and no longer than a CLIP's where a tower of transformers reads more.
    """
    length, vocab = min(module.context_length, MAX_TOKENS), module.vocab_size
    padding = getattr(getattr(module, "config", None), "pad_token_id", None) or 0
    tokens = torch.randint(padding + 1, vocab - 1, (2, length), generator=generator)
    tokens[:, length // 2 :] = padding
    tokens[:, length // 2] = vocab - 1
    return tokens.to(next(module.parameters()).device)
