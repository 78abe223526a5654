"""The named axes of transformers' GPT-J."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import compt

BLOCK = "transformer.h.{block}"


class GptJLayout(compt.Layout):
    """The axes of GPT-J.

    Attention and MLP read one norm side by side, and positions rotate part of each head. Exact at
    any width and depth.
    """

    api_version = "1.2"
    patterns = {
        "transformer.wte.weight": "vocab -> embed",
        f"{BLOCK}.ln_1.*": "embed",
        f"{BLOCK}.attn.q_proj.weight": "(heads head_dim) <- embed",
        f"{BLOCK}.attn.k_proj.weight": "(heads head_dim) <- embed",
        f"{BLOCK}.attn.v_proj.weight": "(heads head_dim) <- embed",
        f"{BLOCK}.attn.out_proj.weight": "embed <- (heads head_dim)",
        f"{BLOCK}.mlp.fc_in.*": "mlp <- embed",
        f"{BLOCK}.mlp.fc_out.*": "embed <- mlp",
        "transformer.ln_f.*": "embed @ lm_head.weight",
        "lm_head.*": "vocab <- embed",
    }

    def sizes(self, module: Any) -> Mapping[str, int]:
        """Return the number of heads."""
        return {"heads": module.config.n_head}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the logits of two random token sequences."""
        tokens = torch.randint(module.config.vocab_size, (2, 16), generator=generator)
        return {"logits": module(tokens.to(module.device), use_cache=False).logits}
