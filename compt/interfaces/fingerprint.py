"""What tells a data set apart from a changed one, without reading all of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DIGITS = 16
"""Hexadecimal digits of a hash, enough to tell apart what changed by accident."""
PROBED = 256
"""Files of which the size is asked for, of however many there are."""


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Return what tells a data set apart from a changed one, as JSON types by name.

    A data set says it in an attribute or a method ``fingerprint``, as a mapping or a text. Where it
    has none, its class, its length and the names of its classes stand for it; one that reads from
    others (``torch.utils.data.Subset``, ``ConcatDataset``) has theirs, with its own length.

    Two of them are equal where nothing has changed. Where they differ, the names say in what:
    ``files``, ``bytes``, ``samples`` and ``tokens`` are counts, ``options`` and ``content`` hashes.
    """
    own = getattr(dataset, "fingerprint", None)
    if callable(own):
        own = own()
    if isinstance(own, Mapping):
        return {str(name): _plain(value) for name, value in own.items()}
    if isinstance(own, str) and own:
        return {"content": own}
    inner = [fingerprint(source) for source in beneath(dataset)]
    if len(inner) > 1:
        return {"parts": inner, **_length(dataset)}
    return {**inner[0], **_length(dataset)} if inner else default_fingerprint(dataset)


def beneath(dataset: Any) -> list[Any]:
    """Return the data sets that one reads from, as wrappers of torch, mmengine and compt name them.

    These are in ``dataset``, ``source`` or the list ``datasets``.
    """
    named = [getattr(dataset, name, None) for name in ("dataset", "source")]
    listed = getattr(dataset, "datasets", None)
    inner = [*named, *(listed if isinstance(listed, list | tuple) else ())]
    return [each for each in inner if hasattr(each, "__len__") and not isinstance(each, str)]


def default_fingerprint(dataset: Any) -> dict[str, Any]:
    """Return class, length and names of classes, for a data set that says nothing of itself."""
    kind = type(dataset)
    classes = getattr(dataset, "classes", None)
    names = {"classes": hash_of(list(map(str, classes)))} if classes else {}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **_length(dataset), **names}


def hash_of(*values: Any) -> str:
    """Hash arrays and bytes as they lie in memory, and anything else as JSON."""
    digest = hashlib.sha256()
    for value in values:
        if hasattr(value, "tobytes") or isinstance(value, bytes):
            raw = memoryview(value)
            raw = raw if raw.c_contiguous else memoryview(raw.tobytes())
        else:
            raw = memoryview(json.dumps(value, sort_keys=True, default=str).encode())
        digest.update(str(raw.nbytes).encode())
        digest.update(raw)
    return digest.hexdigest()[:DIGITS]


def sizes_of(paths: Iterable[str | Path]) -> list[int]:
    """Return the sizes of files in bytes, -1 for one that cannot be read."""
    return [_size(path) for path in paths]


def probed(count: int, most: int = PROBED) -> list[int]:
    """Return at most so many numbers below ``count``, evenly spaced, the first and last of them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1


def _length(dataset: Any) -> dict[str, int]:
    try:
        return {"samples": len(dataset)}
    except TypeError:
        return {}


def _plain(value: Any) -> Any:
    """Return a value as JSON types, as it comes back from a file."""
    return json.loads(json.dumps(value, default=str))
