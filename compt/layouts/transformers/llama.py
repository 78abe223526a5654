"""Layouts of decoders with rotary positions and grouped queries, as Llama has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compt.layouts.transformers._decoder import (
    ATTENTION,
    GATED_MLP,
    PRE_NORMS,
    RMS_NORM,
    DecoderLayout,
    decoder,
)


class LlamaLayout(DecoderLayout):
    """The axes of Llama, Mistral, Qwen2, Qwen3 and SmolLM3.

    They have RMSNorm, rotary positions, grouped queries and gated MLPs.
    """

    patterns = decoder(
        {
            **PRE_NORMS,
            **ATTENTION,
            **GATED_MLP,
            "self_attn.q_norm.*": "rms_norm_gain: head_dim",
            "self_attn.k_norm.*": "rms_norm_gain: head_dim",
        }
    )


class Olmo2Layout(DecoderLayout):
    """The axes of OLMo 2 and 3.

    Each sub-layer reads the residual stream as it is, and a norm of what it makes ends its branch.
    Queries and keys are normalised over all heads at once. Exact at whole multiples.
    """

    patterns = decoder(
        {
            **ATTENTION,
            "self_attn.q_norm.*": "rms_norm_gain: (kv_heads group head_dim)",
            "self_attn.k_norm.*": "rms_norm_gain: (kv_heads head_dim)",
            "self_attn.o_proj.*": f"{ATTENTION['self_attn.o_proj.*']}"
            " * post_attention_layernorm.weight",
            "post_attention_layernorm.*": f"{RMS_NORM} -> embed",
            **GATED_MLP,
            "mlp.down_proj.*": "embed <- mlp * post_feedforward_layernorm.weight",
            "post_feedforward_layernorm.*": f"{RMS_NORM} -> embed",
        }
    )
    whole = frozenset({"embed"})


class Phi3Layout(DecoderLayout):
    """The axes of Phi-3 and Phi-4, in which q, k and v are one tensor, and gate and up another."""

    patterns = decoder(
        {
            **PRE_NORMS,
            "self_attn.qkv_proj.*": "(kv_heads group head_dim | kv_heads head_dim"
            " | kv_heads head_dim) <- embed",
            "self_attn.o_proj.*": "embed <- (kv_heads group head_dim)",
            "mlp.gate_up_proj.*": "(2 mlp) <- embed",
            "mlp.down_proj.*": "embed <- mlp",
        }
    )

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the heads, and their size, which no shape tells apart."""
        return {**super().sizes(module), "head_dim": module.model.layers[0].self_attn.head_dim}


class Starcoder2Layout(DecoderLayout):
    """The axes of StarCoder2, which has LayerNorm and an MLP without a gate."""

    patterns = decoder(
        {
            "input_layernorm.*": "embed",
            **ATTENTION,
            "post_attention_layernorm.*": "embed",
            "mlp.c_fc.*": "mlp <- embed",
            "mlp.c_proj.*": "embed <- mlp",
        },
        norm="embed",
    )
