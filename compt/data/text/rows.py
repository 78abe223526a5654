"""Text in the rows of JSON lines, Parquet files and saved Hugging Face datasets."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compt.data._storage import File, described, find, locate, opened, package, reading
from compt.data.file_source import FileSource
from compt.data.text._pieces import pieces
from compt.data.text.files import Read, Skipped, TextReader, text_option
from compt.errors import DataError, did_you_mean
from compt.interfaces import foreign
from compt.interfaces.data import NO_TEXT
from compt.interfaces.left_out import MAX_BROKEN, LeftOut

ROWS = 64
"""Rows read at a time."""
IS_NULL = "whose text is null"
NO_STRING = "whose text is no string"
BLANK_LINE = "blank lines"


class Rows(FileSource, TextReader):
    """Documents that are values of rows.

    What is no text, or empty, is skipped and counted.

    Args:
        files: split -> what holds its rows.
        key: of the text in a row.
        cache_dir: where tokens are kept.
        options: those of every source.
    """

    def __init__(
        self, files: Mapping[str, Any], key: str, cache_dir: str | Path | None, **options: Any
    ) -> None:
        super().__init__(files, **options)
        self.key, self.cache_dir = text_option("key", key), cache_dir
        self.options = {"key": key}

    def read(self, file: File) -> Read:
        """Read a file row by row."""
        with reading(file.name):
            for value, position in self.rows(file):
                if isinstance(value, Skipped):
                    yield value, position
                elif isinstance(value, str) and value.strip():
                    for piece in pieces([value]):
                        yield piece, position
                else:
                    yield Skipped(_why_not(value), file.name), position

    @abstractmethod
    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """Yield the values of a file, each with about how many bytes of the file are read.

        What has no value is a ``Skipped``.
        """

    def missing(self, columns: Iterable[str], where: str) -> DataError:
        """Make the error for rows without the key."""
        names = list(columns)
        return DataError(
            f"The rows have no '{self.key}'.{did_you_mean(self.key, names)}",
            where=where,
            do=f"They have: {', '.join(names) or 'nothing'}. Name the text with key='...'.",
        )


class JsonLines(Rows):
    """One JSON object a line, compressed or not.

    Args:
        key: of the text. The first row of a file must have it; later ones without it are skipped.
        pattern: names of the files that count in a folder and those below it.
        max_broken: share of the rows that may be left out.
        num_samples: size of the training split in blocks, for plans.
        cache_dir: where tokens are kept.
        files: split -> file, folder, pattern or list of these; fsspec URLs too.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files; while reading, a line that is no JSON object, or no such key.
    """

    format = "jsonl"

    def __init__(
        self,
        *,
        key: str = "text",
        pattern: str = "*.jsonl",
        max_broken: float = MAX_BROKEN,
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, key, cache_dir, num_samples=num_samples, max_broken=max_broken)
        self.pattern = text_option("pattern", pattern)

    def find(self, split: str, left_out: LeftOut) -> Sequence[File]:
        """Return the files that the config names for a split."""
        return find(self.path(split), self.pattern, left_out)

    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """Parse line by line."""
        first = True
        with opened(file) as (text, raw):
            for number, line in enumerate(foreign.lines(text, file.name), 1):
                where = f"{file.name}, line {number}"
                if not line.strip():
                    yield Skipped(BLANK_LINE, where, is_document=False), raw.tell()
                    continue
                row = self._parse(line, where)
                if first and self.key not in row:
                    raise self.missing(row, where)
                first = False
                yield self._value(row, where), raw.tell()

    def _value(self, row: Mapping[str, Any], where: str) -> Any:
        """Return the text of a row, or why it has none."""
        if self.key not in row:
            return Skipped(f"without the key '{self.key}'", where)
        value = row[self.key]
        return (
            value if isinstance(value, str) and value.strip() else Skipped(_why_not(value), where)
        )

    def _parse(self, line: str, where: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
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
        key: the column of texts.
        pattern: names of the files that count in a folder and those below it.
        max_broken: share of the rows that may be left out.
        num_samples: size of the training split in blocks, for plans.
        cache_dir: where tokens are kept.
        files: split -> file, folder, pattern or list of these; fsspec URLs too.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files; while reading, a damaged file, no such column, or pyarrow is
            missing.
    """

    format = "parquet"

    def __init__(
        self,
        *,
        key: str = "text",
        pattern: str = "*.parquet",
        max_broken: float = MAX_BROKEN,
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, key, cache_dir, num_samples=num_samples, max_broken=max_broken)
        self.pattern = text_option("pattern", pattern)

    def find(self, split: str, left_out: LeftOut) -> Sequence[File]:
        """Return the files that the config names for a split."""
        return find(self.path(split), self.pattern, left_out)

    def rows(self, file: File) -> Iterator[tuple[Any, int]]:
        """Read a few rows at a time, through buffers that keep whole row groups out of memory."""
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
        key: the column of texts.
        max_broken: share of the rows that may be left out.
        num_samples: size of the training split in blocks, for plans.
        cache_dir: where tokens are kept.
        files: split -> folder or list of folders; fsspec URLs too. Of a DatasetDict the part named
            like the split counts; its subfolders, such as ``'corpus/validation'``, are datasets
            too.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such dataset or part; while reading, no such column, or the package datasets
            is missing.
    """

    format = "datasets"

    def __init__(
        self,
        *,
        key: str = "text",
        max_broken: float = MAX_BROKEN,
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, key, cache_dir, num_samples=num_samples, max_broken=max_broken)

    def find(self, split: str, left_out: LeftOut) -> Sequence[File]:
        """Return the folders of a split's datasets, each as one file."""
        paths = self.path(split)
        folders = (paths,) if isinstance(paths, str | Path) else paths
        return [_dataset(str(folder), split) for folder in folders]

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


def _why_not(value: Any) -> str:
    """Return why a value is no text."""
    if value is None:
        return IS_NULL
    return NO_TEXT if isinstance(value, str) else NO_STRING


def _dataset(url: str, split: str) -> File:
    """Find the folder of a dataset, or of the part of a DatasetDict, as one file."""
    system, path = locate(url)
    with reading(url):
        if system.isfile(f"{path}/dataset_dict.json"):
            names = foreign.parse_json(system.cat_file(f"{path}/dataset_dict.json"))["splits"]
            if split not in names:
                folders = ", ".join(f"{path}/{name}" for name in names)
                raise DataError(
                    f"The dataset has no part '{split}'.{did_you_mean(split, names)}",
                    where=url,
                    do=f"Name the folder of one: {folders}.",
                )
            path = f"{path}/{split}"
        if not system.isfile(f"{path}/state.json"):
            raise DataError(
                "This is no saved dataset.",
                where=url,
                do="Give the folder that save_to_disk of datasets has written.",
            )
        state = foreign.parse_json(system.cat_file(f"{path}/state.json"))
        for entry in state.get("_data_files") or ():
            foreign.file_in(Path(path), entry["filename"], f"{path}/state.json")
        below = described(system, system.find(path, detail=True))
    digest = hashlib.sha256(
        json.dumps([(file.name, file.size, file.stamp) for file in below]).encode()
    )
    name = path if below[0].local else system.unstrip_protocol(path)
    return File(name, sum(file.size for file in below), digest.hexdigest(), system, path)
