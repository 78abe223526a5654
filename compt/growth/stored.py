"""Read weights from files of safetensors, and fill such files, one tensor at a time."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from compt.errors import ConfigError, some
from compt.files import WEIGHT_SUFFIXES
from compt.interfaces.foreign import parse_json, shard_files
from compt.shards import INDEX_SUFFIX, SUFFIX, tensor_files

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats by safetensors' names."""


class NotStreamed(Exception):
    """Weights cannot be read or written tensor by tensor, for the reason that it says."""


@dataclass(frozen=True)
class Entry:
    """Where a file of safetensors holds a tensor."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """In bytes from the beginning of the file."""


class Entries:
    """Where files hold tensors, by name."""

    entries: dict[str, Entry]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: entry.shape for name, entry in self.entries.items()}


class StoredWeights(Entries, Mapping[str, Tensor]):
    """The tensors of a file, of shards or a folder by name, each read as it is asked for.

    Files are memory-mapped, and nothing of them stays in memory but what the caller keeps.

    Raises:
        NotStreamed: the folder does not hold one set of safetensors, complete.
    """

    def __init__(self, path: Path) -> None:
        self.entries = _all_entries(_weight_files(path) if path.is_dir() else tensor_files(path))

    @classmethod
    def of(cls, files: FilledFiles) -> StoredWeights:
        """Return the tensors of files that have been filled."""
        stored = cls.__new__(cls)
        stored.entries = files.entries
        return stored

    def __getitem__(self, name: str) -> Tensor:
        path = self.entries[name].path
        try:
            # Opened anew each time: while a file is mapped, what was read of it counts as memory.
            with safetensors.safe_open(path, "pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (OSError, safetensors.SafetensorError) as error:
            do = "Check that the file is complete."
            raise ConfigError(f"'{path}' cannot be read: {error}.", do=do) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class FilledFiles(Entries):
    """The files of safetensors that a library has laid out, whose tensors are filled in place.

    Raises:
        NotStreamed: a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.entries = _all_entries(paths)
        self.missing = set(self.entries)
        """The names of tensors that are not filled yet."""

    @classmethod
    def within(cls, folder: Path) -> FilledFiles:
        """Return all files of weights in a folder.

        Raises:
            NotStreamed: it holds weights in another format, or none.
        """
        paths = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_SUFFIXES)
        others = [path.name for path in paths if path.suffix != SUFFIX]
        if others or not paths:
            raise NotStreamed(f"its library writes {others[0] if others else 'no safetensors'}")
        return cls(paths)

    def fill(self, name: str, value: Tensor) -> None:
        """Write one tensor to its place."""
        entry = self.entries[name]
        assert (tuple(value.shape), value.dtype) == (entry.shape, entry.dtype), name
        with open(entry.path, "r+b", buffering=0) as file:
            file.seek(entry.start)
            data = memoryview(value.contiguous().reshape(-1).view(torch.uint8).numpy())
            while data:  # Linux writes 2 GiB at most at once
                data = data[file.write(data) :]
        self.missing.discard(name)

    def finish(self) -> None:
        """Bring all files to the disk."""
        assert not self.missing, self.missing
        for path in {entry.path for entry in self.entries.values()}:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


@contextmanager
def without_values() -> Iterator[None]:
    """Let safetensors write headers alone in this thread, and take the room of the values.

    What follows a header reads as zeros. To write those would take the disk as long as to fill
    them.
    """
    library: Any = safetensors.torch
    write, thread = library.serialize_file, threading.get_ident()

    def divert(tensors: Mapping[str, Any], path: str | Path, metadata: Any = None) -> None:
        specs = tensors.values()
        known = all(getattr(spec, "dtype", None) in DTYPES for spec in specs)
        # Another thread may write a checkpoint.
        if threading.get_ident() == thread and known:
            _write_header(tensors, Path(path), metadata)
        else:
            write(tensors, path, metadata=metadata)

    library.serialize_file = divert
    try:
        yield
    finally:
        library.serialize_file = write


def _write_header(tensors: Mapping[str, Any], path: Path, metadata: Any) -> None:
    """Write the file of safetensors that holds tensors, but for their values."""
    # Without values it is small, and says in which order the library has them.
    empty = {name: torch.empty(0, dtype=DTYPES[spec.dtype]) for name, spec in tensors.items()}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    start = 0
    for name in _parse_header(safetensors.torch.save(empty)):
        spec = tensors[name]
        offsets = [start, start := start + spec.data_len]
        header[name] = {"dtype": spec.dtype, "shape": [*spec.shape], "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.flush()
        _take_room(file.fileno(), 8 + len(text) + start)


def _parse_header(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def _take_room(descriptor: int, num_bytes: int) -> None:
    """Lengthen a file, with room on the disk where the system knows how to take it."""
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        os.ftruncate(descriptor, num_bytes)


def read_entries(path: Path) -> dict[str, Entry]:
    """Return where a file holds its tensors, by name.

    Raises:
        NotStreamed: the file is damaged, or holds numbers of a format that torch does not compute
            with.
    """
    try:
        with safetensors.safe_open(path, "pt"):  # it compares the header with the file's size
            pass
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = parse_json(file.read(length))
    except (OSError, ValueError, struct.error, safetensors.SafetensorError) as error:
        raise NotStreamed(f"'{path.name}' cannot be read: {error}") from error
    header.pop("__metadata__", None)
    for name, said in header.items():
        if said["dtype"] not in DTYPES:
            raise NotStreamed(f"'{name}' in '{path.name}' is of the format {said['dtype']}")
    return {
        name: Entry(
            path, DTYPES[said["dtype"]], tuple(said["shape"]), 8 + length + said["data_offsets"][0]
        )
        for name, said in header.items()
    }


def overflown(dtype: str, names: Sequence[str]) -> ConfigError:
    """Return the error for tensors whose values a number format cannot hold."""
    return ConfigError(
        f"{dtype} cannot hold the values of {len(names)} tensors: {some(names)}.",
        do="Write another number format: --dtype bfloat16 or float32.",
    )


def _all_entries(paths: Sequence[Path]) -> dict[str, Entry]:
    """Return where files hold their tensors, which each is in one of them alone."""
    entries: dict[str, Entry] = {}
    for path in paths:
        own = read_entries(path)
        if twice := sorted(own.keys() & entries.keys()):
            raise NotStreamed(f"'{twice[0]}' is in two files")
        entries |= own
    return entries


def _weight_files(folder: Path) -> list[Path]:
    """Return the one set of safetensors files in a folder."""
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if len(indices) == 1:
        try:
            paths = shard_files(indices[0])
        except (OSError, ValueError) as error:
            raise NotStreamed(f"'{indices[0].name}' cannot be read: {error}") from error
    if len(paths) != 1 and len(indices) != 1:
        raise NotStreamed(f"'{folder.name}' has no single set of safetensors")
    return paths
