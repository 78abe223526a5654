"""Reads tokens in files, local ones mapped into memory, and cuts them into blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from compt.data._mixed import Mixed
from compt.data._ranges import ByteRange, RangeReader
from compt.data._storage import is_remote
from compt.errors import DataError
from compt.interfaces import Tokens, TokenSpan
from compt.interfaces.data import NO_TEXT
from compt.interfaces.fingerprint import DIGITS, hash_of, probed
from compt.interfaces.left_out import MAX_BROKEN, LeftOut

NO_BLOCK = "tokens at the end, which fill no block"
MAX_OPEN = 64
"""Files that a process keeps mapped at a time."""


def mapped(span: TokenSpan) -> np.ndarray:
    """Map tokens into memory, read-only.

    Raises:
        DataError: the file is gone or shorter than it was.
    """
    try:
        return np.memmap(span.file, span.dtype, "r", span.offset, (span.count,))
    except (OSError, ValueError) as error:
        raise DataError(
            "The file of tokens was removed or cut short while in use.",
            where=str(span.file),
            do="Start again: what the cache holds is made anew.",
        ) from error


def read_span(span: TokenSpan, start: int, stop: int, reader: RangeReader) -> np.ndarray:
    """Read tokens of a span from one position to another.

    Raises:
        DataError: the file is gone or shorter than it was, or its server cannot be reached.
    """
    if not is_remote(span.file):
        return mapped(span)[start:stop]
    return np.frombuffer(reader.read(*range_of(span, start, stop)), span.dtype)


def range_of(span: TokenSpan, start: int, stop: int) -> ByteRange:
    """Return where the tokens of a span lie, from one position to another."""
    item = np.dtype(span.dtype).itemsize
    return ByteRange(span.file, span.offset + start * item, (stop - start) * item)


def wrong_id(span: TokenSpan, token: int, num_ids: int) -> DataError:
    """Make the error for a token that the tokenizer does not have."""
    return DataError(
        f"The file has the token {token}; the tokenizer has 0 to {num_ids - 1}.",
        where=str(span.file),
        do=f"Name the tokenizer that made it, and check dtype='{span.dtype}' and header.",
    )


def _left_out(tokens: Tokens, max_broken: float) -> LeftOut:
    """Return what was left out of some tokens, by the number alone where no more is known."""
    result = LeftOut() if tokens.left_out is None else tokens.left_out.copy()
    if tokens.left_out is None:
        result.sample(NO_TEXT, count=tokens.skipped)
    result.max_broken = max_broken
    return result


class TokenBlocks(Dataset[Any]):
    """A sequence of tokens in blocks of ``context + 1``.

    Each begins with the last token of the one before, so that every token but the first is
    predicted exactly once, each in its block alone; fewer than ``context`` at the end, which fill
    no block, are left out.

    Args:
        tokens: more than ``context`` of them.
        context: tokens predicted in a block.
        max_broken: share of the documents that may be left out.
        num_ids: how many ids the tokenizer has; the tokens of files on servers, which are not read
            through before, are held against it as they are read.

    Items: ``tokens`` int64 [context + 1].

    ``num_tokens`` counts all tokens, end marks with them; ``num_bytes`` the UTF-8 bytes of their
    text, None where that is not known; ``skipped`` the rows or files left out; ``left_out`` says
    why, and what else is.
    """

    def __init__(
        self,
        tokens: Tokens,
        context: int,
        *,
        max_broken: float = MAX_BROKEN,
        num_ids: int | None = None,
    ) -> None:
        self.context, self._num_ids = context, num_ids
        self._digest = tokens.digest
        self.num_tokens, self.num_bytes, self.skipped = (
            tokens.num_tokens,
            tokens.num_bytes,
            tokens.skipped,
        )
        self._spans = tuple(span for span in tokens.spans if span.count)
        self._ends = np.cumsum([span.count for span in self._spans])
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()
        self._reader = RangeReader()

        self.left_out = _left_out(tokens, max_broken)
        self.left_out.part(NO_BLOCK, self.num_tokens - 1 - len(self) * context)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Number of tokens and of blocks, and the digest of the tokens, or their places."""
        places = [(span.dtype, span.offset, span.count) for span in self._spans]
        return {
            "tokens": self.num_tokens,
            "samples": len(self),
            "content": self._digest[:DIGITS] or hash_of(places),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped files behind, as a worker process maps them anew."""
        return {**self.__dict__, "_maps": OrderedDict()}

    def __len__(self) -> int:
        return (self.num_tokens - 1) // self.context

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one block."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        pieces = [self._read(*piece) for piece in self._pieces(index)]
        tokens = np.concatenate(pieces, dtype=np.int64, casting="same_kind")
        return {"tokens": torch.from_numpy(tokens)}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several blocks, as loaders ask for a batch."""
        self.fetch_ahead(indices)
        return [self[index] for index in indices]

    def fetch_ahead(self, indices: Sequence[int]) -> None:
        """Read all of these blocks at a time where they lie on servers.

        Raises:
            DataError: a server cannot be reached, or a file is gone.
        """
        if all(not is_remote(span.file) for span in self._spans):
            return
        self._reader.fetch_ahead(
            range_of(self._spans[number], start, stop)
            for index in indices
            for number, start, stop in self._pieces(index)
        )

    def check(self, blocks: int = 64) -> None:
        """Read some blocks, evenly spaced, where they lie on servers.

        Raises:
            DataError: a file cannot be read, or has tokens that the tokenizer lacks.
        """
        if any(is_remote(span.file) for span in self._spans):
            self.__getitems__(probed(len(self), blocks))

    def _pieces(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Yield where a block lies, by number of the file, first token and the one behind it."""
        start = index % len(self) * self.context
        stop = start + self.context + 1
        number = int(np.searchsorted(self._ends, start, "right"))
        while start < stop:
            end = int(self._ends[number])
            first = end - self._spans[number].count
            yield number, start - first, min(stop, end) - first
            start, number = min(stop, end), number + 1

    def _read(self, number: int, start: int, stop: int) -> np.ndarray:
        """Read tokens of a file from one position to another."""
        span = self._spans[number]
        if not is_remote(span.file):
            return self._map(number)[start:stop]
        tokens = read_span(span, start, stop, self._reader)
        low, high = int(tokens.min()), int(tokens.max())
        if self._num_ids is not None and (low < 0 or high >= self._num_ids):
            raise wrong_id(span, low if low < 0 else high, self._num_ids)
        return tokens

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            self._maps[number] = mapped(self._spans[number])
        self._maps.move_to_end(number)
        if len(self._maps) > MAX_OPEN:
            self._maps.popitem(last=False)
        return self._maps[number]


class MixedBlocks(Mixed):
    """Blocks of several sources, one after the other.

    Args:
        datasets: of one context.
        weights: share of the draws that each has in training; None draws all blocks alike.

    Items, ``num_tokens``, ``num_bytes`` and ``skipped`` are those of :class:`TokenBlocks`.
    """

    def __init__(self, datasets: Sequence[TokenBlocks], weights: Sequence[float] | None) -> None:
        super().__init__(datasets, weights)
        sizes = [blocks.num_bytes for blocks in datasets]
        known = [size for size in sizes if size is not None]
        self.num_bytes = sum(known) if len(known) == len(sizes) else None
        self.num_tokens = sum(blocks.num_tokens for blocks in datasets)
        self.skipped = sum(blocks.skipped for blocks in datasets)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one block."""
        number, own = self.place(index)
        block: dict[str, torch.Tensor] = self.datasets[number][own]
        return block

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several blocks, as loaders ask for a batch."""
        self.fetch_ahead(indices)
        return [self[index] for index in indices]
