"""Keep what a teacher says of each sample on disk, and read it at later passes over the data.

A cache is a folder of safetensors files, each with the outputs of some samples by their number in
the data set, row by row, and two checksums a row: of what the teacher was run on, and of what it
said. A row counts only where its own checksum holds, so that a killed process, a full disk or a
damaged file cost no more than running the teacher on those samples again. Several processes, and
several runs one after the other, share a folder: rows are the same, whoever writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compt.errors import TrainingError, WorkDirError
from compt.files import FORMAT, read_json, write_json
from compt.training.cache_table import INPUT, OUTPUT, Table
from compt.writing import not_written

DESCRIPTION = "cache.json"
ROWS_AT_A_TIME = 2**21
"""Values of which a checksum is computed at a time, as it takes memory of its own."""


class OutputCache:
    """The outputs of a teacher by sample, in a folder named after all that they depend on.

    Args:
        folder: of all caches.
        key: what the outputs depend on, as JSON types by name.
        num_samples: of the data.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], num_samples: int) -> None:
        self.num_samples = num_samples
        text = json.dumps(key, sort_keys=True, default=str)
        self.key: dict[str, Any] = json.loads(text)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.num_damaged = 0
        """Rows that were there with another checksum than their own."""
        self._table = self._described()
        self._maps: dict[tuple[int, str], NDArray[np.uint8]] = {}
        self._verified: set[int] = set()

    def _described(self) -> Table | None:
        """Return what the folder says that it holds, None where it is not there yet."""
        path = self.folder / DESCRIPTION
        if not path.exists():
            return None
        do = f"Remove the folder '{self.folder}': it is made anew."
        content = read_json(path, do)
        try:
            table = Table.from_json(content["outputs"], self.num_samples)
        except (KeyError, TypeError, ValueError) as error:
            raise WorkDirError(f"'{path.name}' is damaged.", where=str(path), do=do) from error
        if content.get("key") != self.key:
            raise WorkDirError(
                "The cached outputs of the teacher belong to another teacher, other data or "
                "another preparation than the folder is named after.",
                where=str(path),
                do=do,
            )
        return table

    def read(self, numbers: Tensor) -> tuple[dict[str, Tensor], Tensor] | None:
        """Return the outputs of some samples, and the checksums of what they were computed from.

        Args:
            numbers: of the samples, int64 [B] on the CPU.

        Returns:
            None where one of them is not there.
        """
        rows = numbers.numpy()
        table = self._table = self._table or self._described()
        if table is None or not all(self._has(int(s)) for s in np.unique(rows // table.num_rows)):
            return None
        sums = self._gathered(OUTPUT, rows)
        if not sums.all():
            return None
        columns = {name: self._gathered(name, rows) for name in (*table.outputs, INPUT)}
        fresh = [i for i, row in enumerate(rows.tolist()) if row not in self._verified]
        if fresh:
            computed = row_checksums({name: column[fresh] for name, column in columns.items()})
            num_wrong = int((computed != sums[fresh]).sum())
            self.num_damaged += num_wrong
            if num_wrong:
                return None
            self._verified.update(rows[fresh].tolist())
        inputs = columns.pop(INPUT)
        return columns, inputs

    def write(self, numbers: Tensor, inputs: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Write the outputs of some samples.

        Args:
            numbers: of the samples, int64 [B] on the CPU.
            inputs: checksums of what they were computed from, int64 [B].
            outputs: by name, [B, ...].

        Raises:
            TrainingError: they have other shapes than those before, or the disk is full.
        """
        table = self._fitting(outputs)
        columns = {name: outputs[name].detach().cpu().contiguous() for name in table.outputs}
        columns[INPUT] = inputs.cpu()
        columns[OUTPUT] = row_checksums(columns)
        rows, offsets = numbers.numpy(), table.offsets()
        try:
            for shard in np.unique(rows // table.num_rows).tolist():
                self._create(shard, table)
                own = np.flatnonzero(rows // table.num_rows == shard)
                with open(self._path(shard), "r+b", buffering=0) as file:
                    for name, column in columns.items():
                        data, num_bytes = _bytes_of(column), table.columns[name].num_bytes
                        for i in own.tolist():
                            row = int(rows[i]) % table.num_rows
                            file.seek(offsets[name] + row * num_bytes)
                            file.write(data[i].tobytes())
        except OSError as error:
            raise not_written(self.folder / DESCRIPTION, error) from error

    def _fitting(self, outputs: Mapping[str, Tensor]) -> Table:
        """Return what a row holds, from the first outputs on."""
        table = Table.of(outputs, self.num_samples)
        if self._table is None:
            content = {"format": FORMAT, "key": self.key, "outputs": table.to_json()}
            write_json(self.folder / DESCRIPTION, content)
            self._table = table
        if table != self._table:
            raise TrainingError(
                f"The teacher's outputs are {table.to_json()}, and those in its cache "
                f"{self._table.to_json()}: samples of other lengths cannot be cached.",
                where=str(self.folder),
                do="Leave out teacher.cache, or give all samples one length.",
            )
        return self._table

    def _path(self, shard: int) -> Path:
        return self.folder / f"outputs-{shard:05d}.safetensors"

    def _create(self, shard: int, table: Table) -> None:
        """Make an empty file, unless another process was faster."""
        path = self._path(shard)
        if path.exists():
            return
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            with open(beside, "wb") as file:
                file.write(table.header())
                file.truncate(table.file_bytes)
            os.link(beside, path)  # unlike a rename, it does not replace what others have begun
        except FileExistsError:
            pass
        finally:
            beside.unlink(missing_ok=True)

    def _has(self, shard: int) -> bool:
        """Tell whether a file is there, whole.

        Raises:
            WorkDirError: it is cut off, where reading it would end the process.
        """
        assert self._table is not None
        path = self._path(shard)
        if (shard, OUTPUT) in self._maps:
            return True
        if not path.exists():
            return False
        if path.stat().st_size != self._table.file_bytes:
            raise WorkDirError(
                f"'{path.name}' is damaged: it has {path.stat().st_size:,} bytes, not "
                f"{self._table.file_bytes:,}.",
                where=str(path),
                do="Remove the file: its samples are run through the teacher again.",
            )
        for name, offset in self._table.offsets().items():
            shape = (self._table.num_rows, self._table.columns[name].num_bytes)
            self._maps[shard, name] = np.memmap(path, np.uint8, "r", offset=offset, shape=shape)
        return True

    def _gathered(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """Return one column of some rows, whose files are there, [B, ...]."""
        assert self._table is not None
        column, num_rows = self._table.columns[name], self._table.num_rows
        gathered = np.empty((len(rows), column.num_bytes), np.uint8)
        for shard in np.unique(rows // num_rows).tolist():
            own = rows // num_rows == shard
            gathered[own] = self._maps[shard, name][rows[own] % num_rows]
        tensor = torch.from_numpy(gathered).view(column.torch_dtype)
        return tensor.reshape(len(rows), *column.shape)


def used_bytes(folder: Path) -> int:
    """Return what the files of a folder take on disk, holes left out."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(getattr(file.stat(), "st_blocks", 0) * 512 for file in files)


def row_checksums(values: Any) -> Tensor:
    """Return a number for each row of a batch that changes whenever a value of the row does.

    It waits for no device. Rows that differ in one value always have two numbers, others almost
    surely; all that is no tensor, or has no rows, does not count.

    Args:
        values: tensors [B, ...] in mappings and lists.

    Returns:
        int64 [B], never 0.
    """
    tensors = [tensor for tensor in _tensors(values) if tensor.dim()]
    total = torch.zeros(len(tensors[0]), dtype=torch.int64, device=tensors[0].device)
    for number, tensor in enumerate(tensors):
        total = total * 31 + number + _row_sums(tensor.detach())
    return total | 1


def _row_sums(tensor: Tensor) -> Tensor:
    bits = _bits(tensor.contiguous().reshape(len(tensor), -1))
    factors = _factors(bits.shape[1], bits.device)
    rows = max(1, ROWS_AT_A_TIME // max(1, bits.shape[1]))
    return torch.cat([(piece.long() * factors).sum(1) for piece in bits.split(rows)])


def _bits(tensor: Tensor) -> Tensor:
    """Return a tensor's values as whole numbers, bit by bit."""
    if tensor.dtype is torch.bool:
        return tensor
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(kinds[tensor.dtype.itemsize])


@lru_cache(maxsize=8)
def _factors(length: int, device: torch.device) -> Tensor:
    """Return an odd number for each position, without pattern; products wrap at 64 bits."""
    mixed = (torch.arange(length, device=device) + 1) * -7046029254386353131
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    return (mixed ^ (mixed >> 27)) | 1


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield from _tensors(value[name])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of each row, [B, bytes], which numpy has no other way to hold bfloat16."""
    flat = tensor.reshape(len(tensor), -1)
    view: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return view
