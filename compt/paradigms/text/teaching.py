"""Let teachers read what their students read, with the tokens of either."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compt.paradigms.text.alignment import (
    TOKENS_A_BYTE,
    Aligned,
    Alignment,
    planned,
    tokens_a_byte,
)
from compt.paradigms.text.tokenizer import LmTokenizer

TOKENIZER = "tokenizer"
"""Where an example batch has the key of the tokenizer that its tokens are of."""


class Alignments:
    """The alignments between the tokenizers of a paradigm's members, each made once.

    Args:
        tokenizer: opens one, by its key.
        is_here: says whether it can be opened without asking a server.
    """

    def __init__(
        self, tokenizer: Callable[[str], LmTokenizer], is_here: Callable[[str], bool]
    ) -> None:
        self._tokenizer, self._is_here = tokenizer, is_here
        self._made: dict[tuple[str, str, int], Alignment] = {}

    def __call__(self, ids: Tensor, student: str, teacher: str, context: int) -> Aligned:
        """Return what a teacher reads for ids [B, L] of a student, outside of compiled code.

        On the meta device, where ids have no values, it is as much as such a text is expected to
        have.

        Raises:
            ConfigError: what text the tokens of either are is not known.
        """
        found: Aligned = self._found(ids, student, teacher, context)
        return found

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _found(self, ids: Tensor, student: str, teacher: str, context: int) -> Aligned:
        if not ids.is_meta:
            return self._alignment(student, teacher, context)(ids)
        if self._is_here(student) and self._is_here(teacher):
            self._alignment(student, teacher, context)
        ratio = self._tokens_a_byte(teacher) / self._tokens_a_byte(student)
        batch_size, length = ids.shape
        return planned(batch_size, length, ratio, context, ids.device)

    def _alignment(self, student: str, teacher: str, context: int) -> Alignment:
        key = (student, teacher, context)
        if key not in self._made:
            ours, theirs = self._tokenizer(student), self._tokenizer(teacher)
            self._made[key] = Alignment(ours, theirs, context)
        return self._made[key]

    def _tokens_a_byte(self, key: str) -> float:
        return tokens_a_byte(self._tokenizer(key)) if self._is_here(key) else TOKENS_A_BYTE


def attention_mask(model: nn.Module, tokens: Tensor) -> Tensor | None:
    """Return a mask [B, 1, L, L] for tokens [B, L] on the meta device, None on others.

    Without one transformers looks for packed texts in the values of the positions, which meta
    tensors do not have.
    """
    if not tokens.is_meta or not hasattr(model.config, "num_attention_heads"):
        return None
    batch_size, length = tokens.shape
    dtype = next(model.parameters()).dtype
    return torch.zeros(batch_size, 1, length, length, device=tokens.device, dtype=dtype)
