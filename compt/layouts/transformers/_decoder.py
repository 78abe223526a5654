"""What the layouts of transformers' decoders share, and patterns that many of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compt.interfaces import Layout, Outputs, Role, Unit
from compt.layouts._options import model_options

TOKENS = 24
"""The length of the probe's sequences, where the context allows it."""

LAYERS = "model.layers"
"""The stack of blocks of most decoders."""

RMS_NORM = "rms_norm_gain: embed"

ATTENTION = {
    "self_attn.q_proj.*": "(kv_heads group head_dim) <- embed",
    "self_attn.k_proj.*": "(kv_heads head_dim) <- embed",
    "self_attn.v_proj.*": "(kv_heads head_dim) <- embed",
    "self_attn.o_proj.*": "embed <- (kv_heads group head_dim)",
}
"""Grouped queries: query head h reads key/value head ``h // group``.

More queries grow inside each group, and a new key/value head brings a whole group of queries.
"""

GATED_MLP = {
    "mlp.gate_proj.*": "mlp <- embed",
    "mlp.up_proj.*": "mlp <- embed",
    "mlp.down_proj.*": "embed <- mlp",
}

PRE_NORMS = {"input_layernorm.*": RMS_NORM, "post_attention_layernorm.*": RMS_NORM}
"""A norm before attention, and another before the MLP."""


def decoder(layer: Mapping[str, str], norm: str = RMS_NORM) -> dict[str, str]:
    """Return the patterns of a whole decoder.

    Args:
        layer: patterns of one block, by names within it; what stands behind a ``*`` is a name
            within it too.
        norm: pattern of the last norm.
    """
    inside = f"{LAYERS}.{{block}}"
    return {
        "model.embed_tokens.weight": "vocab -> embed",
        **{f"{inside}.{key}": value.replace("* ", f"* {inside}.") for key, value in layer.items()},
        "model.norm.*": f"{norm} @ lm_head.weight",
        "lm_head.*": "vocab <- embed",
    }


class DecoderLayout(Layout):
    """A decoder of transformers, which is probed by its logits of random tokens."""

    roles: Mapping[str, Role | Unit] = {"group": "hidden", "head_dim": "rotary"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of query heads, and of the key/value heads that they share."""
        config = module.config
        return {"heads": config.num_attention_heads, "kv_heads": config.num_key_value_heads}

    def options(self, module: Any) -> Mapping[str, Any]:
        """Return those of the model's config."""
        return model_options(module.config)

    def periods(self, module: Any) -> Mapping[str, int]:
        """Return after how many layers their kinds come again, as with sliding windows in some."""
        options = [getattr(module.config, key, None) for key in ("layer_types", "no_rope_layers")]
        kinds = [*zip(*filter(None, options), strict=True)]
        period = next(n for n in range(1, len(kinds) + 2) if kinds[n:] == kinds[:-n])
        return {LAYERS: period} if 1 < period < len(kinds) else {}

    def probe(
        self, module: Any, generator: torch.Generator, common: Mapping[str, int] | None = None
    ) -> Outputs:
        """Return logits [2, TOKENS, vocab] of random tokens, or as many as the context holds.

        The logits are those of the sequences' ends, of the tokens and positions in common.
        """
        config, sizes = module.config, common or {}
        vocab = sizes.get("vocab", config.vocab_size)
        positions = sizes.get("position", getattr(config, "max_position_embeddings", None))
        length = TOKENS
        # where only some layers have a sliding window, within it the two kinds would look alike
        if len(set(getattr(config, "layer_types", None) or ())) > 1:
            length += getattr(config, "sliding_window", None) or 0
        tokens = torch.randint(vocab, (2, length), generator=generator)
        tokens = tokens[:, :positions].to(module.device)
        logits = module(tokens, use_cache=False, logits_to_keep=TOKENS).logits
        return {"logits": logits[..., :vocab]}
