"""Text in rows: JSON lines, Parquet files, saved Hugging Face datasets."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from compt.data._options import text_option
from compt.data.text._find import File, described, find, locate, opened, package, reading
from compt.data.text._pieces import Piece, pieces
from compt.data.text.files import Source
from compt.errors import DataError, did_you_mean

ROWS = 64
"""Rows read at a time."""


class Rows(Source):
    """Documents that are values of rows; what is no text, or empty, is skipped and counted."""

    pattern: ClassVar[str]

    def __init__(self, files: Sequence[File], key: str) -> None:
        self.key = text_option(self.kind, "key", key)
        super().__init__(files, key=key)

    def read(self, file: File) -> Iterator[tuple[Piece, int]]:
        """Read a file row by row."""
        with reading(file.name):
            for value, position in self.rows(file):
                if isinstance(value, str) and value.strip():
                    for piece in pieces([value]):
                        yield piece, position
                else:
                    self.skipped += 1

    @abstractmethod
    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """The values of a file, each with about how many bytes of the file are read."""

    def missing(self, columns: Iterable[str], where: str) -> DataError:
        """The error for rows without the key."""
        names = list(columns)
        return DataError(
            f"The rows have no '{self.key}'.{did_you_mean(self.key, names)}",
            where=where,
            do=f"They have: {', '.join(names) or 'nothing'}. Name the text with key='...'.",
        )


class JsonLines(Rows):
    """One JSON object a line, compressed or not.

    Args:
        paths: file, folder, pattern or list of these; fsspec URLs too.
        split: not read.
        key: of the text. The first row of a file must have it; later ones without it are skipped.
        pattern: names of the files that count in a folder and those below it.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files; while reading, a line that is no JSON object, or no such key.
    """

    kind = "jsonl"

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        split: str,
        *,
        key: str = "text",
        pattern: str = "*.jsonl",
    ) -> None:
        super().__init__(find(paths, text_option(self.kind, "pattern", pattern)), key)

    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """Parse line by line."""
        first = True
        with opened(file) as (text, raw):
            for number, line in enumerate(text, 1):
                if line.strip():
                    row = self._parse(line, f"{file.name}, line {number}")
                    if first and self.key not in row:
                        raise self.missing(row, f"{file.name}, line {number}")
                    first = False
                    yield row.get(self.key), raw.tell()

    def _parse(self, line: str, where: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"The line is no JSON: {error}.", where=where, do="Correct or remove it."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                "The line is no JSON object.",
                where=where,
                do=f'Write it as {{"{self.key}": "..."}}.',
            )
        return row


class Parquet(Rows):
    """A column of Parquet files, read batch by batch.

    Args:
        paths: file, folder, pattern or list of these; fsspec URLs too.
        split: not read.
        key: the column of texts.
        pattern: names of the files that count in a folder and those below it.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files; while reading, a damaged file, no such column, or pyarrow is
            missing.
    """

    kind = "parquet"

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        split: str,
        *,
        key: str = "text",
        pattern: str = "*.parquet",
    ) -> None:
        super().__init__(find(paths, text_option(self.kind, "pattern", pattern)), key)

    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """Read one row group after the other, a few rows at a time; buffers keep row groups out of
        memory.
        """
        parquet = package("pyarrow.parquet")
        with file.system.open(file.path, "rb") as raw:
            table = parquet.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
            columns = table.schema_arrow.names
            if self.key not in columns:
                raise self.missing(columns, file.name)
            number, count = 0, table.metadata.num_rows
            for batch in table.iter_batches(ROWS, columns=[self.key], use_threads=False):
                number += batch.num_rows
                for value in batch.column(0).to_pylist():
                    yield value, file.size * number // count


class SavedDatasets(Rows):
    """A column of Hugging Face datasets as ``save_to_disk`` leaves them.

    Args:
        paths: folder or list of folders; fsspec URLs too. Of a DatasetDict the part named like the
            split counts; its subfolders, such as ``'corpus/validation'``, are datasets too.
        split: of the part that counts.
        key: the column of texts.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such dataset or part; while reading, no such column, or the package datasets
            is missing.
    """

    kind = "datasets"

    def __init__(
        self, paths: str | Path | Sequence[str | Path], split: str, *, key: str = "text"
    ) -> None:
        folders = (paths,) if isinstance(paths, str | Path) else paths
        super().__init__([_dataset(str(folder), split) for folder in folders], key)

    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """Read a dataset, mapped into memory, a few rows at a time."""
        table = package("datasets").load_from_disk(file.name)
        if self.key not in table.column_names:
            raise self.missing(table.column_names, file.name)
        number, count = 0, len(table)
        for batch in table.select_columns([self.key]).with_format(None).iter(ROWS):
            number += len(batch[self.key])
            for value in batch[self.key]:
                yield value, file.size * number // count


def _dataset(url: str, split: str) -> File:
    """The folder of a dataset, or of the part of a DatasetDict, as one file."""
    system, path = locate(url)
    with reading(url):
        if system.isfile(f"{path}/dataset_dict.json"):
            parts = json.loads(system.cat_file(f"{path}/dataset_dict.json"))["splits"]
            if split not in parts:
                raise DataError(
                    f"The dataset has no part '{split}'.{did_you_mean(split, parts)}",
                    where=url,
                    do=f"Name the folder of one: {', '.join(f'{path}/{part}' for part in parts)}.",
                )
            path = f"{path}/{split}"
        if not system.isfile(f"{path}/state.json"):
            raise DataError(
                "This is no saved dataset.",
                where=url,
                do="Give the folder that save_to_disk of datasets has written.",
            )
        below = described(system, system.find(path, detail=True))
    digest = hashlib.sha256(
        json.dumps([(file.name, file.size, file.stamp) for file in below]).encode()
    )
    name = path if below[0].local else system.unstrip_protocol(path)
    return File(name, sum(file.size for file in below), digest.hexdigest(), system, path)
