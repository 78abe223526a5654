"""Layout of timm's VisionTransformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compt.interfaces import Layout, Outputs
from compt.layouts._probes import images, similarity


class VisionTransformerLayout(Layout):
    """The axes of timm's ViT.

    It may have class and register tokens, layer scale, q/k norms, a norm before the blocks, and
    attention pooling.
    """

    patterns = {
        "patch_embed.proj.weight": "patch_embed <- 3 patch patch",
        "patch_embed.proj.bias": "patch_embed",
        "cls_token": "1 1 patch_embed",
        "reg_token": "1 register -> patch_embed",
        "pos_embed": "1 position patch_embed",
        "norm_pre.weight": "layer_norm_gain: patch_embed -> embed",
        "norm_pre.bias": "layer_norm_bias: patch_embed -> embed",
        "blocks.{block}.norm1.weight": "embed",
        "blocks.{block}.norm1.bias": "embed",
        "blocks.{block}.attn.qkv.weight": "(3 heads head_dim) <- embed",
        "blocks.{block}.attn.qkv.bias": "(3 heads head_dim)",
        "blocks.{block}.attn.q_norm.weight": "head_dim",
        "blocks.{block}.attn.q_norm.bias": "head_dim",
        "blocks.{block}.attn.k_norm.weight": "head_dim",
        "blocks.{block}.attn.k_norm.bias": "head_dim",
        "blocks.{block}.attn.proj.weight": "embed <- (heads head_dim) * blocks.{block}.ls1.gamma",
        "blocks.{block}.attn.proj.bias": "embed * blocks.{block}.ls1.gamma",
        "blocks.{block}.ls1.gamma": "scale: embed",
        "blocks.{block}.norm2.weight": "embed",
        "blocks.{block}.norm2.bias": "embed",
        "blocks.{block}.mlp.fc1.weight": "mlp <- embed",
        "blocks.{block}.mlp.fc1.bias": "mlp",
        "blocks.{block}.mlp.fc2.weight": "embed <- mlp * blocks.{block}.ls2.gamma",
        "blocks.{block}.mlp.fc2.bias": "embed * blocks.{block}.ls2.gamma",
        "blocks.{block}.ls2.gamma": "scale: embed",
        "norm.weight": "embed",
        "norm.bias": "embed",
        "fc_norm.weight": "embed",
        "fc_norm.bias": "embed",
        "attn_pool.latent": "1 latent -> embed",
        "attn_pool.pos_embed": "position -> embed",
        "attn_pool.q.weight": "(heads head_dim) <- embed",
        "attn_pool.q.bias": "(heads head_dim)",
        "attn_pool.kv.weight": "(2 heads head_dim) <- embed",
        "attn_pool.kv.bias": "(2 heads head_dim)",
        "attn_pool.q_norm.weight": "head_dim",
        "attn_pool.q_norm.bias": "head_dim",
        "attn_pool.k_norm.weight": "head_dim",
        "attn_pool.k_norm.bias": "head_dim",
        "attn_pool.proj.weight": "embed <- (heads head_dim)",
        "attn_pool.proj.bias": "embed",
        "attn_pool.norm.weight": "embed",
        "attn_pool.norm.bias": "embed",
        "attn_pool.mlp.fc1.weight": "mlp <- embed",
        "attn_pool.mlp.fc1.bias": "mlp",
        "attn_pool.mlp.fc2.weight": "embed <- mlp",
        "attn_pool.mlp.fc2.bias": "embed",
        "head.weight": "classes <- embed",
        "head.bias": "classes",
    }
    roles = {"patch_embed": "stream", "register": "fixed", "latent": "fixed"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the fused qkv does not tell."""
        return {"heads": module.blocks[0].attn.num_heads} if len(module.blocks) else {}

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
