"""Layouts of timm's VisionTransformer and Eva, with learned and with rotary positions.

DeiT, DINOv2 and SigLIP are of the first class, EVA, EVA-02 and DINOv3 of the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity, tokens_on_grid

HEADS, BLOCK = "(heads head_dim)", "blocks.{block}"
FIRST_SCALE, SECOND_SCALE = (
    " ".join(f"{BLOCK}.{name}" for name in names)
    for names in (("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))
)
"""The layer scales that a ViT may have, and an Eva."""

PATTERNS = {
    "patch_embed.proj.*": "patch_embed <- 3 patch patch",
    "cls_token": "1 1 patch_embed",
    "reg_token": "1 register -> patch_embed",
    "norm_pre.*": "patch_embed -> embed",
    f"{BLOCK}.norm1.*": "embed",
    f"{BLOCK}.attn.qkv.*": "(3 heads head_dim) <- embed",
    f"{BLOCK}.attn.q_norm.*": "head_dim",
    f"{BLOCK}.attn.k_norm.*": "head_dim",
    f"{BLOCK}.attn.norm.*": HEADS,
    f"{BLOCK}.attn.proj.*": f"embed <- {HEADS} * {FIRST_SCALE}",
    f"{BLOCK}.ls1.gamma": "scale: embed",
    f"{BLOCK}.gamma_1": "scale: embed",
    f"{BLOCK}.norm2.*": "embed",
    f"{BLOCK}.mlp.fc1.*": "mlp <- embed",
    f"{BLOCK}.mlp.fc1_g.*": "mlp <- embed",
    f"{BLOCK}.mlp.fc1_x.*": "mlp <- embed",
    f"{BLOCK}.mlp.norm.*": "mlp",
    f"{BLOCK}.mlp.fc2.*": f"embed <- mlp * {SECOND_SCALE}",
    f"{BLOCK}.ls2.gamma": "scale: embed",
    f"{BLOCK}.gamma_2": "scale: embed",
    "norm.*": "embed",
    "fc_norm.*": "embed",
    "attn_pool.latent": "1 latent -> embed",
    "attn_pool.pos_embed": "position -> embed",
    "attn_pool.q.*": f"{HEADS} <- embed",
    "attn_pool.kv.*": "(2 heads head_dim) <- embed",
    "attn_pool.q_norm.*": "head_dim",
    "attn_pool.k_norm.*": "head_dim",
    "attn_pool.proj.*": f"embed <- {HEADS}",
    "attn_pool.norm.*": "embed",
    "attn_pool.mlp.fc1.*": "mlp <- embed",
    "attn_pool.mlp.fc2.*": "embed <- mlp",
    "head.*": "classes <- embed",
}

POST_NORM = {
    f"{BLOCK}.norm1.*": "embed -> embed",
    f"{BLOCK}.attn.proj.*": f"embed <- {HEADS} * {BLOCK}.norm1.weight",
    f"{BLOCK}.norm2.*": "embed -> embed",
    f"{BLOCK}.mlp.fc2.*": f"embed <- mlp * {BLOCK}.norm2.weight",
}
"""Of blocks whose branches end in a norm instead of beginning with one."""


class VisionTransformerLayout(Layout):
    """The axes of timm's ViT.

    It may have class and register tokens, layer scale, q/k norms, gated MLPs, a norm before the
    blocks, attention pooling, and norms that end a branch instead of beginning it. Norms inside
    attention or MLP span all heads or units, which then grow as copies.
    """

    patterns = PATTERNS
    roles = {"patch_embed": "stream", "register": "fixed", "latent": "fixed"}

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns of the kind of its blocks, with the places of its tokens."""
        own = dict(self.patterns)
        if module.pos_embed is not None:
            places = tokens_on_grid(module.pos_embed.shape[1], module.patch_embed.grid_size)
            own["pos_embed"] = f"1 {places} -> patch_embed"
        for block in module.blocks[:1]:
            if hasattr(block.mlp, "gate_last"):  # gate and value in one layer
                own[f"{BLOCK}.mlp.fc1.*"] = "(2 mlp) <- embed"
            if not hasattr(block, "ls1") and not hasattr(block, "gamma_1"):
                own |= POST_NORM
        return own

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the fused qkv does not tell, and of patches."""
        heads = {"heads": module.blocks[0].attn.num_heads} if len(module.blocks) else {}
        if module.pos_embed is None:
            return heads
        return heads | dict(zip(("height", "width"), module.patch_embed.grid_size, strict=True))

    def score_scales(self, module: Any) -> Mapping[str, float]:
        """Return the scale of scores, in blocks and in the pooling of their tokens."""
        scales = {f"{BLOCK}.attn.qkv.*": block.attn.scale for block in module.blocks[:1]}
        return scales | ({"attn_pool.q.*": module.attn_pool.scale} if module.attn_pool else {})

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the patches write the residual stream itself where no ``norm_pre`` follows."""
        return {"patch_embed": "embed"} if isinstance(module.norm_pre, nn.Identity) else {}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the output for two random images, and how alike their tokens are."""
        tokens = module.forward_features(images(module, module.patch_embed.img_size, generator))
        outputs = {"output": module.forward_head(tokens)}
        # only a norm takes scale and pads off the tokens, so that no width changes their cosines
        if not isinstance(module.norm, nn.Identity):
            outputs["similarity"] = similarity(tokens)
        return outputs


class EvaLayout(VisionTransformerLayout):
    """The axes of timm's Eva, a ViT with rotary positions, whose q, k and v may be three layers."""

    patterns = {
        **PATTERNS,
        f"{BLOCK}.attn.q_bias": HEADS,
        f"{BLOCK}.attn.v_bias": HEADS,
        f"{BLOCK}.attn.q_proj.*": f"{HEADS} <- embed",
        f"{BLOCK}.attn.k_proj.*": f"{HEADS} <- embed",
        f"{BLOCK}.attn.v_proj.*": f"{HEADS} <- embed",
        f"{BLOCK}.attn.gate.*": f"{HEADS} <- embed",
    }

    def score_scales(self, module: Any) -> Mapping[str, float]:
        """Return nothing, as positions mostly rotate the channels."""
        return {}
