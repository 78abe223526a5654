"""Image-text pairs, or images alone, listed in a CSV or TSV file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compt.data.file_source import FileSource
from compt.data.images._strings import Packer
from compt.data.images.broken import BrokenSample, Sample, SkipBroken, decode_file
from compt.data.images.labels import number
from compt.errors import ConfigError, DataError, did_you_mean
from compt.interfaces import ImageSource

ALIASES = {"image": "filepath", "caption": "title"}
"""open_clip's names for the columns, read where the default names do not occur."""
BORDER = "\0"
"""Stands between the captions of a row, where they are packed."""
MAX_CELL = 2**24


class CsvSource(FileSource, ImageSource):
    """Image-text pairs from tables, each a column of image paths and one or several of captions.

    ``dict(type='csv', train='train.csv', val='val.csv')``: a split is one table, with a header
    line, in UTF-8. A cell may hold a JSON list of captions.

    Args:
        root: the folder that relative image paths start from; that of the table by default.
        image_key: column of image paths ('filepath' is read too, as open_clip writes it).
        caption_key: column or columns of captions ('title' is read too); None reads images alone.
        label_key: column of class names; ``classes`` are those in this table, sorted.
        sep: what separates cells; by default a tab in .tsv files and where the header holds more
            tabs than commas, else a comma.
        max_broken: share of unreadable images above which reading stops; see
            :meth:`~compt.data.images.broken.SkipBroken.check`.
        num_samples: size of the training split, for plans.
        files: split -> its table.

    Raises:
        ConfigError: an option that cannot be.
        DataError: on opening, the table is missing, empty, not readable, or has no such column.
    """

    provides = frozenset({"image", "captions", "label"})
    split_noun, takes_lists = "file", False

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        image_key: str = "image",
        caption_key: str | Sequence[str] | None = "caption",
        label_key: str | None = None,
        sep: str | None = None,
        max_broken: float = 0.01,
        num_samples: int | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples)
        self.caption_key = caption_key
        self.options: dict[str, Any] = dict(
            root=root, image_key=image_key, label_key=label_key, sep=sep, max_broken=max_broken
        )
        if caption_key is None:
            self.provides = self.provides - {"captions"}

    def open(self, split: str, *, captions: bool = True, image_size: int | None = None) -> CsvPairs:
        """Read the table of a split."""
        caption_key = self.caption_key if captions else None
        return CsvPairs(self.path(split), caption_key=caption_key, **self.options)


class CsvPairs(SkipBroken):
    """The rows of one table.

    Rows without image path, or without caption where captions are read, count as broken, as do
    those with more cells than the header. Arguments and errors are those of :class:`CsvSource`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        root: str | Path | None = None,
        image_key: str = "image",
        caption_key: str | Sequence[str] | None = "caption",
        label_key: str | None = None,
        sep: str | None = None,
        max_broken: float = 0.01,
    ) -> None:
        self.path = Path(path).expanduser()
        self.root = Path(root).expanduser() if root is not None else self.path.parent
        if sep is not None and (not isinstance(sep, str) or len(sep) != 1):
            raise ConfigError(f"sep={sep!r} is not one character.", where="csv")
        keys = (caption_key,) if isinstance(caption_key, str) else tuple(caption_key or ())
        if not keys and caption_key is not None:
            raise ConfigError(
                "caption_key names no column.",
                where="csv",
                do="caption_key=None reads images alone.",
            )
        rows = _Rows(self.path, sep)
        image, *captions = (rows.column(key) for key in (image_key, *keys))
        label = rows.column(label_key) if label_key is not None else None
        labels = self._fill(rows, image, captions, label)
        super().__init__(len(self._images), max_broken=max_broken)
        if label is not None:
            self.classes, self._labels = number(labels)

    def _fill(
        self, rows: _Rows, image: int, captions: Sequence[int], label: int | None
    ) -> list[str]:
        """Pack image paths and captions, where there are columns for them.

        Returns:
            The name of each row's class.
        """
        images, texts, labels = Packer(), Packer(), []
        for row in rows:
            cell = [value.strip() for value in row]
            cell += [""] * (rows.width - len(cell))
            images.add("" if any(cell[rows.width :]) else cell[image])
            if captions:
                texts.add(BORDER.join(caption for i in captions for caption in _captions(cell[i])))
            if label is not None:
                labels.append(cell[label])
        self._images, self._texts = images.packed(), texts.packed() if captions else None
        if not len(self._images):
            raise DataError("The table has a header but no rows.", where=str(self.path))
        self._labels = np.full(len(self._images), -1, np.int64)
        return labels

    def where(self, index: int) -> str:
        """Return the path of the image, or the row that has none."""
        image = self._images[index]
        return os.path.join(self.root, image) if image else f"{self.path}, row {index + 1}"

    def read(self, index: int) -> Sample:
        """Read one row's image and captions, or raise BrokenSample where it has none."""
        if not self._images[index]:
            raise BrokenSample("its row has no image path, or more cells than the header")
        captions = self._captions(index)
        return {
            "image": decode_file(self.where(index)),
            "captions": captions,
            "label": int(self._labels[index]),
        }

    def _captions(self, index: int) -> tuple[str, ...]:
        if self._texts is None:
            return ()
        captions = self._texts[index]
        if not captions:
            raise BrokenSample("its row has no caption")
        return tuple(captions.split(BORDER))


class _Rows:
    """The rows of a table, read one by one, without blank lines."""

    def __init__(self, path: Path, sep: str | None) -> None:
        self.path = path
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline(MAX_CELL)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"The table cannot be read: {error}.", where=str(path), do="Check the path."
            ) from error
        if not first.strip():
            raise DataError(
                "The table is empty.", where=str(path), do="Its first line must name the columns."
            )
        tabs = path.suffix.lower() in (".tsv", ".tab") or first.count("\t") > first.count(",")
        self.sep = sep or ("\t" if tabs else ",")
        self.header = [name.strip() for name in next(csv.reader([first], delimiter=self.sep))]
        self.width = len(self.header)

    def column(self, key: str) -> int:
        """Find a column by its name or, for default names, by open_clip's name for it."""
        for name in (key, ALIASES.get(key)):
            if name in self.header:
                return self.header.index(name)
        raise DataError(
            f"The table has no column '{key}'.{did_you_mean(key, self.header)}",
            where=str(self.path),
            do=f"Its columns, separated by {self.sep!r}: {', '.join(self.header)}. "
            "Name them with image_key, caption_key (None: images alone) and label_key; the "
            "separator with sep.",
        )

    def __iter__(self) -> Iterator[list[str]]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.sep)
            try:
                next(reader)
                yield from (row for row in reader if row)
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(
                    f"The table cannot be read: {error}.",
                    where=f"{self.path}, about line {reader.line_num + 1}",
                    do="It must be UTF-8, with quotes around cells that hold separators or line "
                    "breaks.",
                ) from error


def _captions(cell: str) -> list[str]:
    """Return the captions of a cell, which is one itself unless it is a JSON list of strings."""
    if cell.startswith("["):
        try:
            listed = json.loads(cell)
        except ValueError:
            listed = None
        if isinstance(listed, list) and all(isinstance(caption, str) for caption in listed):
            return [caption.replace(BORDER, " ").strip() for caption in listed if caption.strip()]
    return [cell.replace(BORDER, " ")] if cell else []
