"""The names of weights that may be several files: 'weights.safetensors' stands for either.

Above a size they are shards, 'weights-00001-of-00003.safetensors' and so on, beside their index,
'weights.safetensors.index.json', which is written last: without it there are no weights. That a
name stands for all of them, only what reads and writes files has to know. Imports nothing heavy.
"""

from __future__ import annotations

import re
from pathlib import Path

MAX_SHARD = 5 * 10**9
"""Bytes above which weights are several files, an export's as a stage's.

Each of them has at most that many, unless a tensor has more. The Hugging Face Hub has the same.
"""

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")


def index_of(path: Path) -> Path:
    """Return the index that weights have above a size."""
    return path.with_name(f"{path.stem}{INDEX_SUFFIX}")


def shard_name(path: Path, number: int, count: int) -> str:
    """Return the name of a shard, of which the first has the number 1."""
    return f"{path.stem}-{number:05d}-of-{count:05d}{SUFFIX}"


def weights_of(file: Path) -> Path:
    """Return the path that stands for the weights that an index or shard is a part of.

    It is ``file`` itself for any other.
    """
    if file.name.endswith(INDEX_SUFFIX):
        return file.with_name(f"{file.name.removesuffix(INDEX_SUFFIX)}{SUFFIX}")
    shard = _SHARD.fullmatch(file.name)
    return file if shard is None else file.with_name(f"{shard['stem']}{SUFFIX}")


def weight_files(path: Path) -> list[Path]:
    """Return the files that weights are in, none where they are not there.

    Of those in shards the index comes first, and a shard may be missing. An index says which shard
    has a tensor, for other libraries; it is not read, as the names of the shards say how many there
    are, and each one's header what is in it.

    Args:
        path: of the weights, or of their index.
    """
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX):
        return [path]
    path = weights_of(path)
    if not index_of(path).is_file():
        return []
    shards = (_SHARD.fullmatch(file.name) for file in shards_beside(path))
    count = max((int(shard["count"]) for shard in shards if shard), default=1)
    names = [shard_name(path, number, count) for number in range(1, count + 1)]
    return [index_of(path), *(path.with_name(name) for name in names)]


def stored_at(path: Path) -> Path:
    """Return the path of weights as a file that is there: of those in shards it is the index."""
    return next(iter(weight_files(path)), path)


def tensor_files(path: Path) -> list[Path]:
    """Return the files that hold the tensors of weights: their shards, or the path itself."""
    files = weight_files(path)
    return files[1:] or files or [path]


def shards_beside(path: Path) -> list[Path]:
    """Return all shards that lie beside the path of weights, of whatever number."""
    found = sorted(path.parent.glob(f"*{SUFFIX}"))
    return [file for file in found if file != path and weights_of(file) == path]
