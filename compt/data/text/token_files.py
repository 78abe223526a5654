"""Files of tokens made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compt.data._cache import key_of, once, progress
from compt.data._options import text_option
from compt.data.text._find import File, find, name_of, reading
from compt.data.text.tokens import Span, Tokens
from compt.errors import ConfigError, DataError
from compt.files import atomic

SCAN = 1 << 22
"""Tokens looked at a time."""


class TokenFiles:
    """Tokens made elsewhere, with whatever separates documents: one sequence, in the order of the
    files.

    Args:
        paths: .npy files, or others that hold nothing but numbers; local file, folder, pattern or
            list of these.
        split: not read.
        dtype: type of the numbers, where the file is no .npy.
        header: bytes before the first number, where the file is no .npy.
        pattern: names of the files that count in a folder and those below it.
        bytes_per_token: mean UTF-8 bytes of a token's text, for bits per byte.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files, or one that holds no such numbers.
    """

    kind = "tokens"

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        split: str,
        *,
        dtype: str = "uint16",
        header: int = 0,
        pattern: str = "*.bin",
        bytes_per_token: float | None = None,
    ) -> None:
        self._check_options(dtype, header, bytes_per_token)
        self.files = find(paths, text_option(self.kind, "pattern", pattern))
        self.spans = tuple(_span(file, dtype, header) for file in self.files)
        self.bytes_per_token = bytes_per_token

    @staticmethod
    def _check_options(dtype: Any, header: Any, bytes_per_token: Any) -> None:
        where = "data of type 'tokens'"
        try:
            integer = np.dtype(dtype).kind in "iu"
        except TypeError:
            integer = False
        if not integer or dtype is None:
            raise ConfigError(
                f"dtype={dtype!r} is no integer type of NumPy.",
                where=where,
                do="For example 'uint16'.",
            )
        if isinstance(header, bool) or not isinstance(header, int) or header < 0:
            raise ConfigError(f"header={header!r} is not a number of bytes from 0 on.", where=where)
        number = isinstance(bytes_per_token, int | float) and not isinstance(bytes_per_token, bool)
        if bytes_per_token is not None and not (number and 0 < bytes_per_token < float("inf")):
            raise ConfigError(
                f"bytes_per_token={bytes_per_token!r} is not a number above 0.", where=where
            )

    @property
    def where(self) -> str:
        """The first file, and how many there are."""
        return name_of(self.files)

    def checked(self, size: int, cache_dir: str | Path | None = None) -> Tokens:
        """The tokens, all looked at once and then remembered: each id must be below ``size``.

        Raises:
            DataError: there are others, or what was looked at cannot be remembered.
        """
        files = [(file.name, file.size, file.stamp) for file in self.files]
        key = key_of([(span.dtype, span.offset) for span in self.spans], files)
        ranges = once(
            f"tokens/ids-{key}.json", cache_dir, find=self._ranges, make=self._scan, megabytes=1
        )
        for span, (low, high) in zip(self.spans, ranges, strict=True):
            if low < 0 or high >= size:
                raise DataError(
                    f"The file has the token {low if low < 0 else high}; the tokenizer has 0 to {size - 1}.",
                    where=str(span.file),
                    do=f"Name the tokenizer that made it, and check dtype='{span.dtype}' and header.",
                )
        count = sum(span.count for span in self.spans)
        return Tokens(
            self.spans,
            None if self.bytes_per_token is None else round(count * self.bytes_per_token),
        )

    def _ranges(self, file: Path) -> list[tuple[int, int]] | None:
        """What a scan has left, None if that is nothing or damaged."""
        try:
            ranges = [(int(low), int(high)) for low, high in json.loads(file.read_text("utf-8"))]
        except (OSError, ValueError, TypeError):
            return None
        return ranges if len(ranges) == len(self.spans) else None

    def _scan(self, file: Path) -> list[tuple[int, int]]:
        """Least and largest token of each file, written as JSON."""
        ranges, done = [], 0
        with progress("checking tokens", sum(span.count for span in self.spans)) as advance:
            for span in self.spans:
                low = high = 0
                for start in range(0, span.count, SCAN):
                    part = span.open()[start : start + SCAN]
                    low, high = min(low, int(part.min())), max(high, int(part.max()))
                    advance(done + start)
                done += span.count
                ranges.append((low, high))
        with atomic(file) as beside:
            beside.write_text(json.dumps(ranges), "utf-8")
        return ranges


def _span(file: File, dtype: str, header: int) -> Span:
    """The tokens of a file."""
    if not file.local:
        raise DataError(
            "Files of tokens are mapped into memory and must be local.",
            where=file.name,
            do="Fetch them.",
        )
    path = Path(file.path)
    if path.suffix == ".npy":
        with reading(file.name):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"The array is {array.dtype} {list(array.shape)}.",
                where=file.name,
                do="Save integers in one row.",
            )
        return Span(path, array.dtype.str, array.offset, len(array))
    item = np.dtype(dtype).itemsize
    if file.size < header or (file.size - header) % item:
        raise DataError(
            f"{file.size} bytes less a header of {header} are no whole number of {dtype}.",
            where=file.name,
            do="Check dtype and header; if it was cut short, make it anew.",
        )
    return Span(path, np.dtype(dtype).str, header, (file.size - header) // item)
