"""Read weights from files of safetensors, and fill such files, one tensor at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from compt.errors import ConfigError, some
from compt.files import WEIGHT_SUFFIXES
from compt.interfaces.foreign import parse_json, shard_files

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
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
    """The tensors of a folder by name, each read from its memory-mapped file as it is asked for.

    Nothing of them stays in memory but what the caller keeps.

    Raises:
        NotStreamed: the folder does not hold one set of safetensors, complete.
    """

    def __init__(self, folder: Path) -> None:
        self.entries = _all_entries(_weight_files(folder))

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
            raise ConfigError(f"'{path}' cannot be read: {error}.", do="Check --from.") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class FilledFiles(Entries):
    """The files of safetensors that a library has laid out, whose tensors are filled in place.

    Args:
        folder: that the library has written.

    Raises:
        NotStreamed: it holds weights in another format, or none.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_SUFFIXES)
        others = [path.name for path in paths if path.suffix != SUFFIX]
        if others or not paths:
            raise NotStreamed(f"its library writes {others[0] if others else 'no safetensors'}")
        self.entries = _all_entries(paths)
        self.missing = set(self.entries)
        """The names of tensors that are not filled yet."""

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
