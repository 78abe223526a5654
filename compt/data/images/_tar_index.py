"""Finds where the members of a tar archive lie, once, and remembers it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import tarfile
import zipfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from compt.data._cache import progress
from compt.data._storage import File, reading, tried
from compt.data.images._strings import PackedStrings, Packer
from compt.errors import DataError
from compt.files import cache_folder
from compt.interfaces.foreign import tar_members
from compt.writing import atomic

FORMAT = 2
SLACK = 1 << 20
"""Bytes behind the end-of-archive mark that are looked through at a time."""
BLOCK = 1 << 22
"""Bytes of an archive on a server that are read at a time, or passed over where a member is larger.
"""
AT_A_TIME = 8
"""Archives on servers that are read at a time."""
MOST_EXTENSION = 64
"""Characters; extensions are kept in an array as wide as the longest."""
NO_SAMPLE = "archive members that belong to no sample"
NO_END = "archives without an end mark, which may be cut short"


@dataclass(frozen=True)
class TarIndex:
    """The samples of one archive, which are members whose names agree up to the first dot.

    ``members`` is int64 [M, 4]: sample, extension (index into ``extensions``), offset, size in
    bytes. ``passed_over`` counts what belongs to no sample, by reason.
    """

    keys: PackedStrings
    extensions: tuple[str, ...]
    members: np.ndarray
    passed_over: Mapping[str, int]

    def dotted(self, extensions: Sequence[str]) -> np.ndarray:
        """Count each sample's members of which only the last extension is among these, int64 [N].

        ``photo.1234.png`` is a member ``1234.png`` of the sample ``photo``.
        """
        ends = [(i, name.rpartition(".")) for i, name in enumerate(self.extensions)]
        numbers = [i for i, (first, _, last) in ends if first and last in extensions]
        mine = self.members[np.isin(self.members[:, 1], numbers), 0]
        return np.bincount(mine, minlength=len(self.keys))

    def repeated(self, extensions: Sequence[str]) -> int:
        """Count the members with these extensions that have the name of another one."""
        numbers = [i for i, name in enumerate(self.extensions) if name in extensions]
        names = self.members[np.isin(self.members[:, 1], numbers), :2]
        return len(names) - len(np.unique(names, axis=0))

    def find(self, extensions: Sequence[str]) -> np.ndarray:
        """Find each sample's member, with the first of these extensions that it has.

        Returns:
            Offset and size, int64 [N, 2], (-1, -1) where a sample has none.
        """
        places = np.full((len(self.keys), 2), -1, np.int64)
        for extension in reversed(extensions):
            if extension in self.extensions:
                mine = self.members[self.members[:, 1] == self.extensions.index(extension)]
                places[mine[:, 0]] = mine[:, 2:]
        return places


def tar_indexes(files: Sequence[File], cache_dir: str | Path | None = None) -> Iterator[TarIndex]:
    """Yield the index of each archive, in order.

    Those on servers are read through once, several at a time, and shared between the processes of
    a machine: each begins with other ones, and finds in the cache what another has done.

    Raises:
        DataError: an archive cannot be read, is compressed, cut short or empty.
    """
    remote = [file for file in files if not file.local]
    if remote:
        order = random.Random(os.getpid()).sample(remote, len(remote))
        with ThreadPoolExecutor(AT_A_TIME) as pool, progress("indexing", len(order)) as advance:
            indexed = pool.map(lambda file: _remembered(file, cache_dir), order)
            for done, _ in enumerate(indexed, 1):
                advance(done)
    for file in files:
        yield tar_index(file, cache_dir)


def _remembered(file: File, cache_dir: str | Path | None) -> None:
    """Index an archive on a server unless the cache has it, and keep that there."""
    path = _cache_file(file, cache_dir)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a cache that cannot be written
            held.enter_context(FileLock(path.with_suffix(".lock")))
        tar_index(file, cache_dir)


def tar_index(file: File, cache_dir: str | Path | None = None) -> TarIndex:
    """Index an archive, or read its index from the cache if the file is still the same.

    Raises:
        DataError: it cannot be read, is compressed, cut short or empty.
    """
    path = _cache_file(file, cache_dir)
    same = np.array([file.size, _number(file.stamp)], np.int64)
    if index := _cached(path, same):
        return index
    index = _scan(file)
    with contextlib.suppress(OSError):  # without a cache the archive is scanned again next time
        _store(path, same, index)
    return index


def _cache_file(file: File, cache_dir: str | Path | None) -> Path:
    name = os.fsencode(Path(file.name).absolute()) if file.local else file.name.encode()
    digest = hashlib.sha256(name).hexdigest()[:24]
    return cache_folder(cache_dir) / "shards" / f"{digest}-v{FORMAT}.npz"


def _number(stamp: str) -> int:
    """Return the time of a local file's last change, or another number for another stamp."""
    if stamp.isdecimal():
        return int(stamp)
    return int.from_bytes(hashlib.sha256(stamp.encode()).digest()[:7], "big")


def _cached(file: Path, same: np.ndarray) -> TarIndex | None:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as saved:
            if not np.array_equal(saved["same"], same):
                return None
            keys = PackedStrings(saved["key_data"], saved["key_ends"])
            passed_over = json.loads(str(saved["passed_over"]))
            extensions = tuple(saved["extensions"].tolist())
            return TarIndex(keys, extensions, saved["members"], passed_over)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _store(file: Path, same: np.ndarray, index: TarIndex) -> None:
    arrays = {
        "same": same,
        "key_data": index.keys.data,
        "key_ends": index.keys.ends,
        "extensions": np.array(index.extensions, np.str_),
        "members": index.members,
        "passed_over": np.array(json.dumps(index.passed_over)),
    }
    with atomic(file) as beside, beside.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]


def _scan(file: File) -> TarIndex:
    """Read all headers of an archive."""
    if file.local:
        with reading(file.name), open(file.place, "rb") as opened:
            return _scan_opened(file, opened)
    return tried(lambda: _scan_remote(file), file.name)


def _scan_remote(file: File) -> TarIndex:
    opened = file.system.open(file.path, "rb", block_size=BLOCK, cache_type="readahead")
    with opened:
        return _scan_opened(file, opened)


def _scan_opened(file: File, opened: Any) -> TarIndex:
    samples: dict[str, int] = {}
    extensions: dict[str, int] = {}
    members = array("q")
    passed_over: dict[str, int] = {}
    try:
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            for member in tar_members(tar, file.size):
                folder, slash, base = member.name.rpartition("/")
                stem, dot, extension = base.partition(".")
                is_named = stem and dot and len(extension) <= MOST_EXTENSION
                if not (member.isreg() and is_named) or member.issparse():
                    passed_over[NO_SAMPLE] = passed_over.get(NO_SAMPLE, 0) + (not member.isdir())
                    continue
                sample = samples.setdefault(folder + slash + stem, len(samples))
                number = extensions.setdefault(extension.lower(), len(extensions))
                members.extend((sample, number, member.offset_data, member.size))
            end = tar.offset
    except tarfile.TarError as error:
        raise DataError(
            f"The shard is no readable, uncompressed tar archive: {error}.",
            where=file.name,
            do="Fetch it again if it is cut short; unpack .tar.gz to .tar, as samples are read at "
            "random.",
        ) from error
    if end >= file.size:
        passed_over[NO_END] = 1
    elif not _is_padding(opened, end):
        # tarfile ends without a word at a header that it cannot read.
        raise DataError(
            f"The shard ends after {end} of {file.size} bytes: there begins a damaged header, or "
            "another archive.",
            where=file.name,
            do="Fetch it again if it is cut short; of archives that cat has joined, pack one.",
        )
    if not samples:
        raise DataError(
            "The shard holds no samples.",
            where=file.name,
            do="Members are named like '000017.jpg'.",
        )
    table = np.array(members, np.int64).reshape(-1, 4)
    passed_over = {reason: count for reason, count in passed_over.items() if count}
    return TarIndex(Packer(samples).packed(), tuple(extensions), table, passed_over)


def _is_padding(opened: Any, start: int) -> bool:
    """Whether an open file holds nothing but zeros from a byte on."""
    opened.seek(start)
    return not any(any(chunk) for chunk in iter(lambda: opened.read(SLACK), b""))
