"""The named axes of transformers' OLMo 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import compt

LAYER = "model.layers.{block}"
ATTENTION = f"{LAYER}.self_attn"


class Olmo2Layout(compt.Layout):
    """The axes of OLMo 2.

    Each sub-layer reads the residual stream as it is, and a norm of what it makes ends its branch.
    Queries and keys are normalised over all heads at once. Exact at whole multiples.
    """

    api_version = "1.2"
    patterns = {
        "model.embed_tokens.weight": "vocab -> embed",
        f"{ATTENTION}.q_proj.*": "(kv_heads group head_dim) <- embed",
        f"{ATTENTION}.k_proj.*": "(kv_heads head_dim) <- embed",
        f"{ATTENTION}.v_proj.*": "(kv_heads head_dim) <- embed",
        f"{ATTENTION}.q_norm.weight": "rms_norm_gain: (kv_heads group head_dim)",
        f"{ATTENTION}.k_norm.weight": "rms_norm_gain: (kv_heads head_dim)",
        f"{ATTENTION}.o_proj.*": "embed <- (kv_heads group head_dim)"
        f" * {LAYER}.post_attention_layernorm.weight",
        f"{LAYER}.post_attention_layernorm.weight": "rms_norm_gain: embed -> embed",
        f"{LAYER}.mlp.gate_proj.weight": "mlp <- embed",
        f"{LAYER}.mlp.up_proj.weight": "mlp <- embed",
        f"{LAYER}.mlp.down_proj.weight": "embed <- mlp"
        f" * {LAYER}.post_feedforward_layernorm.weight",
        f"{LAYER}.post_feedforward_layernorm.weight": "rms_norm_gain: embed -> embed",
        "model.norm.weight": "rms_norm_gain: embed @ lm_head.weight",
        "lm_head.weight": "vocab <- embed",
    }
    roles = {"group": "hidden"}
    whole = frozenset({"embed"})

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of key/value heads."""
        return {"kv_heads": module.config.num_key_value_heads}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the logits of two random token sequences."""
        tokens = torch.randint(module.config.vocab_size, (2, 16), generator=generator)
        return {"logits": module(tokens.to(module.device), use_cache=False).logits}
