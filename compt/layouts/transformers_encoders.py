"""Layouts of transformers' encoders of text, BERT, RoBERTa and ModernBERT.

In BERT and RoBERTa every sum passes through a norm, whose result is the residual stream. Width
keeps the function at whole multiples. Depth does not, as a norm after the sum changes even what a
block that adds nothing passes on. ModernBERT normalises before each branch, and its embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compt.interfaces import Layout, Outputs
from compt.layouts._options import model_options
from compt.layouts._probes import similarity

LAYER, MODERN_LAYER = "encoder.layer.{block}", "layers.{block}"
HEADS = "(heads head_dim)"
TOKENS = 24
"""The length of the probe's texts, beyond what a token sees to either side."""


class BertModelLayout(Layout):
    """The axes of BERT, RoBERTa and XLM-RoBERTa without a head."""

    patterns = {
        "embeddings.word_embeddings.weight": "vocab -> embed",
        "embeddings.position_embeddings.weight": "position -> embed",
        "embeddings.token_type_embeddings.weight": "token_type -> embed",
        "embeddings.LayerNorm.*": "embed -> embed",
        f"{LAYER}.attention.self.query.*": f"{HEADS} <- embed",
        f"{LAYER}.attention.self.key.*": f"{HEADS} <- embed",
        f"{LAYER}.attention.self.value.*": f"{HEADS} <- embed",
        f"{LAYER}.attention.output.dense.*": f"embed <- {HEADS}",
        f"{LAYER}.attention.output.LayerNorm.*": "embed -> embed",
        f"{LAYER}.intermediate.dense.*": "mlp <- embed",
        f"{LAYER}.output.dense.*": "embed <- mlp",
        f"{LAYER}.output.LayerNorm.*": "embed -> embed",
        "pooler.dense.*": "embed <- embed",
    }
    roles = {"token_type": "fixed"}

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns, in which RoBERTa's first positions are padding's."""
        table = getattr(module.embeddings, "position_embeddings", None)
        if table is None or table.padding_idx is None:
            return self.patterns
        positions = f"({table.padding_idx + 1} | position) -> embed"
        return {**self.patterns, "embeddings.position_embeddings.weight": positions}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the projections do not tell."""
        return {"heads": module.config.num_attention_heads}

    def options(self, module: Any) -> Mapping[str, Any]:
        """Return those of the model's config."""
        return model_options(module.config)

    def score_scales(self, module: Any) -> Mapping[str, float]:
        """Return the scale of scores."""
        scales = [layer.attention.self.scaling for layer in module.encoder.layer[:1]]
        return dict.fromkeys(scales and [f"{LAYER}.attention.self.query.*"], *scales)

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return how alike the tokens of two random texts are at the end."""
        return {"similarity": similarity(module(_tokens(module, generator)).last_hidden_state)}


class ModernBertModelLayout(BertModelLayout):
    """The axes of ModernBERT without a head.

    Its first block reads what the embeddings' norm writes, without one of its own.
    """

    patterns = {
        "embeddings.tok_embeddings.weight": "vocab -> embed",
        "embeddings.norm.*": "embed -> embed",
        f"{MODERN_LAYER}.attn_norm.*": "embed",
        f"{MODERN_LAYER}.attn.Wqkv.*": "(3 heads head_dim) <- embed",
        f"{MODERN_LAYER}.attn.Wo.*": f"embed <- {HEADS}",
        f"{MODERN_LAYER}.mlp_norm.*": "embed",
        f"{MODERN_LAYER}.mlp.Wi.*": "(2 mlp) <- embed",
        f"{MODERN_LAYER}.mlp.Wo.*": "embed <- mlp",
        "final_norm.*": "embed",
    }
    patterns |= {key.replace("{block}", "{first}"): value for key, value in patterns.items()}
    roles = {"head_dim": "rotary"}
    whole = frozenset({"embed"})

    def score_scales(self, module: Any) -> Mapping[str, float]:
        """Return nothing, as positions rotate the channels."""
        return {}

    def periods(self, module: Any) -> Mapping[str, int]:
        """Return after how many blocks attention sees the whole text again."""
        return {"layers": _period(module.config.layer_types[1:])}


class MaskedLmLayout(Layout):
    """The axes of an encoder with its head for masked words, whichever it is.

    The head's layer writes the stream's width anew, for its own norm, which only the words' table
    reads.
    """

    parts = ("bert", "roberta", "model")
    patterns = {
        "cls.predictions.transform.dense.*": "embed <- embed",
        "cls.predictions.transform.LayerNorm.*": "embed @ cls.predictions.decoder.weight",
        "cls.predictions.decoder.*": "vocab <- embed",
        "cls.predictions.bias": "vocab",
        "lm_head.dense.*": "embed <- embed",
        "lm_head.layer_norm.*": "embed @ lm_head.decoder.weight",
        "lm_head.decoder.*": "vocab <- embed",
        "lm_head.bias": "vocab",
        "head.dense.*": "embed <- embed",
        "head.norm.*": "embed @ decoder.weight",
        "decoder.*": "vocab <- embed",
    }

    def options(self, module: Any) -> Mapping[str, Any]:
        """Return those of the model's config."""
        return model_options(module.config)

    def axis_aliases(self, module: Any) -> Mapping[str, str]:
        """Say that the head works on the encoder's stream and words."""
        return {f"{part}.{axis}": axis for part in self.parts for axis in ("embed", "vocab")}

    def probe(self, module: Any, generator: torch.Generator) -> Outputs:
        """Return the logits [2, L, vocab] of two random texts."""
        return {"logits": module(_tokens(module, generator)).logits}


def _tokens(module: Any, generator: torch.Generator) -> Tensor:
    """Return two random texts [2, L], longer than any window and no longer than positions go."""
    config = module.config
    length = TOKENS + (getattr(config, "local_attention", None) or 0)
    # RoBERTa counts positions from 2, behind that of its padding.
    length = min(length, config.max_position_embeddings - 2)
    tokens = torch.randint(1, config.vocab_size, (2, length), generator=generator)
    if config.pad_token_id is not None:
        tokens = tokens.masked_fill(tokens == config.pad_token_id, 0)
    return tokens.to(next(module.parameters()).device)


def _period(kinds: list[str]) -> int:
    """Return after how many blocks the kinds of blocks come again."""
    num_kinds = max(len(kinds), 1)
    return next((n for n in range(1, num_kinds) if kinds[n:] == kinds[:-n]), num_kinds)
