"""Write a finished model anew in its library's format, in another number format or in shards."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from compt.files import WEIGHT_SUFFIXES
from compt.growth.convert import named_dtype, rounded
from compt.interfaces import Paradigm, accepted
from compt.interfaces.paradigm import MAX_SHARD
from compt.writing import atomic_folder, check_output


def export_checkpoint(
    source: Path,
    out: Path,
    paradigm: Paradigm,
    *,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD,
) -> dict[str, Any]:
    """Write the model of an export into another folder.

    Args:
        source: the export, which the paradigm follows already.
        out: folder to write; must not exist or be empty.
        paradigm: that wrote the export.
        dtype: number format of the weights; by default the source's.
        max_shard_size: bytes of a file of weights, where the library loads several.

    Returns:
        ``dtype``, ``rounding_error`` where weights were rounded (the largest relative difference of
        the outputs), ``files`` with their bytes by path, and ``notes``, as JSON types.

    Raises:
        ComptError: the source cannot be read, ``out`` is not empty or cannot be written (it is then
            as it was), or the number format cannot hold the values.
    """
    check_output(out)
    number_format = named_dtype(dtype) or paradigm.weight_dtype(source)
    model = paradigm.load(source)
    is_rounded = number_format not in (None, next(model.parameters()).dtype)
    report = rounded(deepcopy(model) if is_rounded else model, model, number_format)
    sharding = accepted(paradigm.export, max_shard_size=max_shard_size)
    with atomic_folder(out) as folder:
        paradigm.export(model, folder, **sharding)
    files = {
        path.relative_to(out).as_posix(): path.stat().st_size
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
    notes = [] if sharding else _large_files(paradigm, out, files, max_shard_size)
    return {**report, "files": files, "notes": [*paradigm.notes, *notes]}


def _large_files(
    paradigm: Paradigm, out: Path, files: Mapping[str, int], max_shard_size: int
) -> list[str]:
    """Say which files are larger than they may be, and why."""
    notes = []
    for name, size in files.items():
        if size > max_shard_size and name.endswith(WEIGHT_SUFFIXES):
            why = paradigm.export_format((out / name).parent).single_file
            notes.append(
                f"'{name}' is one file above the size of a shard: "
                f"{why or 'its paradigm writes no shards'}"
            )
    return notes
