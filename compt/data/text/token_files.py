"""Files of tokens made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compt.data._ranges import RangeReader
from compt.data._storage import FETCH_AGAIN, File, find, reading
from compt.data.file_source import FileSource
from compt.data.text.files import text_option
from compt.data.text.tokens import range_of, read_span
from compt.errors import ConfigError, DataError
from compt.interfaces import Tokens, TokenSource, TokenSpan
from compt.interfaces.fingerprint import hash_of
from compt.interfaces.left_out import LeftOut

PROBE = 1 << 12
"""Tokens that are looked at in three places of a file, to tell it from a changed one."""

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of a .npy file, by version."""


class TokenFiles(FileSource, TokenSource):
    """Tokens made elsewhere, with whatever separates documents.

    All files of a split, in their order, are one sequence: .npy files, or others that hold nothing
    but numbers.

    Args:
        dtype: type of the numbers, where the file is no .npy.
        header: bytes before the first number, where the file is no .npy.
        pattern: names of the files that count in a folder and those below it.
        bytes_per_token: mean UTF-8 bytes of a token's text, for bits per byte.
        num_samples: size of the training split in blocks, for plans.
        cache_dir: where it is kept which ids were seen.
        files: split -> file, folder, pattern or list of these; fsspec URLs too.

    Raises:
        ConfigError: an option that cannot be.
        DataError: on opening, no such files, or one that holds no such numbers.
    """

    def __init__(
        self,
        *,
        dtype: str = "uint16",
        header: int = 0,
        pattern: str = "*.bin",
        bytes_per_token: float | None = None,
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples)
        _check_options(dtype, header, bytes_per_token)
        self.dtype, self.header, self.bytes_per_token = dtype, header, bytes_per_token
        self.pattern, self.cache_dir = text_option("pattern", pattern), cache_dir

    def open(self, split: str) -> Tokens:
        """Find the files of a split."""
        left_out = LeftOut()
        files = find(self.path(split), self.pattern, left_out)
        spans = tuple(_span(file, self.dtype, self.header) for file in files)
        num_bytes = None
        if self.bytes_per_token is not None:
            num_bytes = round(sum(span.count for span in spans) * self.bytes_per_token)
        digest = hash_of(*(probe for span in spans for probe in _probes(span)))
        return Tokens(spans, num_bytes, left_out=left_out, digest=digest)


def _check_options(dtype: Any, header: Any, bytes_per_token: Any) -> None:
    try:
        integer = dtype is not None and np.dtype(dtype).kind in "iu"
    except TypeError:
        integer = False
    if not integer:
        raise ConfigError(
            f"dtype={dtype!r} is no integer type of NumPy.", do="For example 'uint16'."
        )
    if isinstance(header, bool) or not isinstance(header, int) or header < 0:
        raise ConfigError(f"header={header!r} is not a number of bytes from 0 on.")
    number = isinstance(bytes_per_token, int | float) and not isinstance(bytes_per_token, bool)
    if bytes_per_token is not None and not (number and 0 < bytes_per_token < float("inf")):
        raise ConfigError(f"bytes_per_token={bytes_per_token!r} is not a number above 0.")


def _probes(span: TokenSpan) -> list[Any]:
    """Return the size of a file of tokens, and what stands at its beginning, middle and end."""
    starts = (0, max(0, span.count // 2), max(0, span.count - PROBE))
    places = [(start, min(start + PROBE, span.count)) for start in starts]
    reader = RangeReader()
    reader.fetch_ahead(range_of(span, *place) for place in places)
    read = [read_span(span, *place, reader) if span.count else np.zeros(0) for place in places]
    return [span.count, *(tokens.tobytes() for tokens in read)]


def _span(file: File, dtype: str, header: int) -> TokenSpan:
    """Return where the tokens of a file lie.

    Raises:
        DataError: it cannot be read, or holds no whole number of them.
    """
    if file.path.endswith(".npy"):
        return _array_span(file)
    item = np.dtype(dtype).itemsize
    if file.size < header or (file.size - header) % item:
        raise DataError(
            f"{file.size} bytes less a header of {header} are no whole number of {dtype}.",
            where=file.name,
            do="Check dtype and header; if it was cut short, make it anew.",
        )
    return TokenSpan(file.place, np.dtype(dtype).str, header, (file.size - header) // item)


def _array_span(file: File) -> TokenSpan:
    """Return where the tokens of a .npy file lie."""
    with reading(file.name), file.system.open(file.path, "rb") as opened:
        version = np.lib.format.read_magic(opened)
        shape, _, dtype = HEADERS[version](opened)
        offset = opened.tell()
    if len(shape) != 1 or dtype.kind not in "iu":
        raise DataError(
            f"The array is {dtype} {list(shape)}.",
            where=file.name,
            do="Save integers in one row.",
        )
    if file.size < offset + shape[0] * dtype.itemsize:
        raise DataError("The file is cut short.", where=file.name, do=FETCH_AGAIN)
    return TokenSpan(file.place, dtype.str, offset, shape[0])
