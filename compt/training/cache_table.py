"""Lay out the files of a teacher's cached outputs, which are safetensors of rows.

Nothing of a file is read to know where a row is: the outputs' shapes and the number of samples say
it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from compt.growth.stored import DTYPES

SHARD_BYTES = 2**29
"""Of a file at most, unless one row is larger."""
INPUT, OUTPUT = "_input", "_output"
"""Under which names a file has the checksums."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""Number formats by torch's, under safetensors' names."""


@dataclass(frozen=True)
class Column:
    """One output of every sample of a file."""

    dtype: str
    shape: tuple[int, ...]
    """Of one sample."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format in torch."""
        return DTYPES[self.dtype]

    @property
    def num_bytes(self) -> int:
        """Of one sample."""
        return prod(self.shape) * self.torch_dtype.itemsize


CHECKSUM = Column("I64", ())


@dataclass(frozen=True)
class Table:
    """What a row holds, and how many rows a file has."""

    outputs: Mapping[str, Column]
    num_samples: int
    """Of the data."""

    @property
    def columns(self) -> dict[str, Column]:
        """Outputs and checksums, in the order of a file."""
        return {**self.outputs, INPUT: CHECKSUM, OUTPUT: CHECKSUM}

    @property
    def row_bytes(self) -> int:
        """What a sample takes on disk."""
        return sum(column.num_bytes for column in self.columns.values())

    @property
    def num_rows(self) -> int:
        """Samples of a file."""
        return max(1, min(self.num_samples, SHARD_BYTES // self.row_bytes))

    @classmethod
    def of(cls, outputs: Mapping[str, Tensor], num_samples: int) -> Table:
        """Return what outputs [B, ...] look like."""
        columns = {n: Column(NAMES[t.dtype], tuple(t.shape[1:])) for n, t in outputs.items()}
        return cls(columns, num_samples)

    def header(self) -> bytes:
        """Return the beginning of a file, as safetensors has it."""
        entries, offset = {}, 0
        for name, column in self.columns.items():
            end = offset + self.num_rows * column.num_bytes
            shape = [self.num_rows, *column.shape]
            entries[name] = {"dtype": column.dtype, "shape": shape, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        return struct.pack("<Q", len(text)) + text

    def offsets(self) -> dict[str, int]:
        """Return where in a file each column begins."""
        offsets, offset = {}, len(self.header())
        for name, column in self.columns.items():
            offsets[name] = offset
            offset += self.num_rows * column.num_bytes
        return offsets

    @property
    def file_bytes(self) -> int:
        """Size of a file, of which only the rows that are there take room on disk."""
        return len(self.header()) + self.num_rows * self.row_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the outputs as JSON types."""
        return {name: [column.dtype, list(column.shape)] for name, column in self.outputs.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], num_samples: int) -> Table:
        """Read what :meth:`to_json` returned."""
        columns = {name: Column(dtype, tuple(shape)) for name, (dtype, shape) in content.items()}
        return cls(columns, num_samples)
