"""Layouts of Google's Gemma 2 and 3.

They have a norm before and a norm behind each sub-layer, gains of 1 + w, embeddings times the root
of the width, and queries times a constant of the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compt.layouts.transformers._decoder import (
    ATTENTION,
    GATED_MLP,
    LAYERS,
    DecoderLayout,
    decoder,
)

NORM = "rms_norm_gain_offset: embed"

SANDWICH = {
    "input_layernorm.*": NORM,
    **ATTENTION,
    "self_attn.o_proj.*": f"{ATTENTION['self_attn.o_proj.*']} * post_attention_layernorm.weight",
    "post_attention_layernorm.*": f"{NORM} -> embed",
    "pre_feedforward_layernorm.*": NORM,
    **GATED_MLP,
    "mlp.down_proj.*": "embed <- mlp * post_feedforward_layernorm.weight",
    "post_feedforward_layernorm.*": f"{NORM} -> embed",
}
"""A block in which norms stand on either side of attention and MLP."""


class Gemma2Layout(DecoderLayout):
    """The axes of Gemma 2."""

    patterns = decoder(SANDWICH, NORM)
    scaled = "self_attn.q_proj.*"
    """What the scale of the scores multiplies, within a block."""

    def multipliers(self, module: Any) -> Mapping[str, float]:
        """Return the factors of embeddings and queries."""
        # rounded to float32, as the model has it
        root = torch.tensor(module.config.hidden_size**0.5, dtype=torch.float32, device="cpu")
        scale = module.config.query_pre_attn_scalar**-0.5
        return {
            "model.embed_tokens.weight": root.item(),
            f"{LAYERS}.{{block}}.{self.scaled}": scale,
        }


class Gemma3Layout(Gemma2Layout):
    """The axes of Gemma 3's language model, which normalises queries and keys."""

    patterns = decoder(
        {
            **SANDWICH,
            "self_attn.q_norm.*": "rms_norm_gain_offset: head_dim",
            "self_attn.k_norm.*": "rms_norm_gain_offset: head_dim",
        },
        NORM,
    )
    scaled = "self_attn.q_norm.*"  # what multiplies the queries before it, the norm takes back
