"""The named axes of BERT with its head for masked words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import compt

LAYER = "bert.encoder.layer.{block}."
HEAD = "cls.predictions."


class BertLayout(compt.Layout):
    """The axes of BERT: every sum passes through a norm, whose result is the residual stream.

    Width keeps the function at whole multiples. Depth does not: a norm after the sum changes even
    what a block that writes nothing passes on.
    """

    api_version = "1.2"
    patterns = {
        "bert.embeddings.word_embeddings.weight": "vocab -> embed",
        "bert.embeddings.position_embeddings.weight": "position -> embed",
        "bert.embeddings.token_type_embeddings.weight": "token_type -> embed",
        "bert.embeddings.LayerNorm.*": "embed -> embed",
        LAYER + "attention.self.query.*": "(heads head_dim) <- embed",
        LAYER + "attention.self.key.*": "(heads head_dim) <- embed",
        LAYER + "attention.self.value.*": "(heads head_dim) <- embed",
        LAYER + "attention.output.dense.*": "embed <- (heads head_dim)",
        LAYER + "attention.output.LayerNorm.*": "embed -> embed",
        LAYER + "intermediate.dense.*": "mlp <- embed",
        LAYER + "output.dense.*": "embed <- mlp",
        LAYER + "output.LayerNorm.*": "embed -> embed",
        HEAD + "transform.dense.*": "embed <- embed",
        HEAD + "transform.LayerNorm.*": "embed @ cls.predictions.decoder.weight",
        HEAD + "decoder.weight": "vocab <- embed",
        HEAD + "decoder.bias": "vocab",
        HEAD + "bias": "vocab",
    }

    roles = {"token_type": "fixed"}

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads, which the projections do not tell."""
        return {"heads": module.config.num_attention_heads}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the logits [2, L, vocab] of random tokens."""
        config = module.config
        shape = (2, min(24, config.max_position_embeddings))
        tokens = torch.randint(config.vocab_size, shape, generator=generator)
        return {"logits": module(tokens.to(next(module.parameters()).device)).logits}
