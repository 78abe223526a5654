"""Tell which column of rows holds their text."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from compt.interfaces.foreign import lines, parse_json
from compt.scaffold.configs.guessing import Found, files_of

DEFAULT = "text"
"""The column that sources read where their config names none."""
OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def text_key(found: Found) -> str | None:
    """Return the column with the longest texts of the first rows, None for the usual one.

    Also None where the rows cannot be read here: their source says what is wrong with them.
    """
    rows: list[Mapping[str, Any]] = []
    with suppress(Exception):  # whatever damaged files and their libraries raise
        rows = _first_rows(found)
    if not rows or any(DEFAULT in row for row in rows):
        return None
    lengths: dict[str, int] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str):
                lengths[key] = lengths.get(key, 0) + len(value)
    return max(lengths, key=lambda key: lengths[key], default=None)


def _first_rows(found: Found) -> list[Mapping[str, Any]]:
    path = Path(found.splits["train"])
    if found.type == "datasets":
        from datasets import load_from_disk

        return list(load_from_disk(str(path)).select(range(3)))
    if path.is_dir():
        path = next(file for file in files_of(path) if f".{found.type}" in file.name)
    if found.type == "parquet":
        from pyarrow.parquet import ParquetFile

        return list(next(ParquetFile(path).iter_batches(3)).to_pylist())
    opener = OPENERS.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as file:
        return [parse_json(line) for line in islice(lines(file, path), 3)]
