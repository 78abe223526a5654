"""The named axes of transformers' Gemma 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import compt

LAYER = "model.layers.{block}"
ATTENTION = f"{LAYER}.self_attn"
NORM = "rms_norm_gain_offset: embed"


class Gemma2Layout(compt.Layout):
    """The axes of Gemma 2.

    A norm before and a norm behind each sub-layer, gains of 1 + w, embeddings times the root of
    the width, and queries times a constant of the config. Exact at any width and depth.
    """

    api_version = "1.2"
    patterns = {
        "model.embed_tokens.weight": "vocab -> embed",
        f"{LAYER}.input_layernorm.weight": NORM,
        f"{ATTENTION}.q_proj.*": "(kv_heads group head_dim) <- embed",
        f"{ATTENTION}.k_proj.*": "(kv_heads head_dim) <- embed",
        f"{ATTENTION}.v_proj.*": "(kv_heads head_dim) <- embed",
        f"{ATTENTION}.o_proj.*": "embed <- (kv_heads group head_dim)"
        f" * {LAYER}.post_attention_layernorm.weight",
        f"{LAYER}.post_attention_layernorm.weight": f"{NORM} -> embed",
        f"{LAYER}.pre_feedforward_layernorm.weight": NORM,
        f"{LAYER}.mlp.gate_proj.weight": "mlp <- embed",
        f"{LAYER}.mlp.up_proj.weight": "mlp <- embed",
        f"{LAYER}.mlp.down_proj.weight": "embed <- mlp"
        f" * {LAYER}.post_feedforward_layernorm.weight",
        f"{LAYER}.post_feedforward_layernorm.weight": f"{NORM} -> embed",
        "model.norm.weight": f"{NORM} @ lm_head.weight",
        "lm_head.weight": "vocab <- embed",
    }
    roles = {"group": "hidden"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of key/value heads."""
        return {"kv_heads": module.config.num_key_value_heads}

    def multipliers(self, module: Any) -> Mapping[str, float]:
        """Return the factors of embeddings and queries."""
        # rounded to float32, as the model has it
        width = torch.tensor(module.config.hidden_size**0.5, device="cpu").item()
        queries = module.config.query_pre_attn_scalar**-0.5
        return {"model.embed_tokens.weight": width, f"{ATTENTION}.q_proj.*": queries}

    def periods(self, module: Any) -> Mapping[str, int]:
        """Return that every second layer sees a sliding window alone."""
        return {"model.layers": 2}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the logits of two random token sequences."""
        tokens = torch.randint(module.config.vocab_size, (2, 16), generator=generator)
        return {"logits": module(tokens.to(module.device), use_cache=False).logits}
