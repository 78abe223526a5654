"""Image-text pairs, or images alone, listed in a CSV or TSV file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from compt.data.file_source import FileSource
from compt.data.images._strings import Packer
from compt.data.images._table import Table
from compt.data.images.broken import (
    NO_CAPTION,
    NOT_UTF8,
    Sample,
    SkipBroken,
    decode_file,
    is_utf8,
)
from compt.data.images.labels import number
from compt.errors import ConfigError, DataError
from compt.interfaces import ImageSource
from compt.interfaces.fingerprint import hash_of, probed, sizes_of
from compt.interfaces.left_out import MAX_BROKEN, LeftOut, share
from compt.registry import Range

BORDER = "\0"
"""Stands between the captions of a row, where they are packed."""
NO_LABEL = "rows without a class name"


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
        quoting: whether a cell may stand in quote marks, which are doubled within; by default
            where no tab separates the cells, or where the header has such cells. Where not, quote
            marks are text.
        max_broken: share of the rows that may be left out, or have unreadable images; see
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
        quoting: bool | None = None,
        max_broken: Annotated[float, Range(minimum=0, maximum=1)] = MAX_BROKEN,
        num_samples: int | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples, max_broken=max_broken)
        self.caption_key = caption_key
        self.options: dict[str, Any] = dict(
            root=root, image_key=image_key, label_key=label_key, sep=sep, quoting=quoting
        )
        if caption_key is None:
            self.provides = self.provides - {"captions"}

    def open(self, split: str, *, captions: bool = True, image_size: int | None = None) -> CsvPairs:
        """Read the table of a split."""
        caption_key = self.caption_key if captions else None
        return CsvPairs(
            self.path(split), caption_key=caption_key, max_broken=self.max_broken, **self.options
        )


class CsvPairs(SkipBroken):
    """The rows of one table.

    Rows without image path, or without caption where captions are read, are left out, as are those
    with more cells than the header. Arguments and errors are those of :class:`CsvSource`.
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
        quoting: bool | None = None,
        max_broken: float = MAX_BROKEN,
    ) -> None:
        self.path = Path(path).expanduser()
        self.root = Path(root).expanduser() if root is not None else self.path.parent
        keys = (caption_key,) if isinstance(caption_key, str) else tuple(caption_key or ())
        if not keys and caption_key is not None:
            raise ConfigError(
                "caption_key names no column.",
                where="csv",
                do="caption_key=None reads images alone.",
            )
        rows = Table(self.path, sep, quoting)
        image, *captions = (rows.column(key) for key in (image_key, *keys))
        label = rows.column(label_key) if label_key is not None else None
        opened = LeftOut(max_broken=share(max_broken))
        labels = self._fill(rows, image, captions, label, opened)
        super().__init__(len(self._images), max_broken=max_broken, opened=opened)
        if not len(self):
            raise _no_rows(self.path, opened)
        self.labels = np.full(len(self), -1, np.int64)
        if label is not None:
            self.classes, self.labels = number(labels)
            self._opened.part(NO_LABEL, int((self.labels < 0).sum()))

    def _fill(
        self,
        rows: Table,
        image: int,
        captions: Sequence[int],
        label: int | None,
        opened: LeftOut,
    ) -> list[str]:
        """Pack image paths and captions, where there are columns for them, of all rows that count.

        Returns:
            The name of each row's class.
        """
        images, texts, labels = Packer(), Packer(), []
        for line, cells in rows.counted(image, opened):
            listed = [caption for i in captions for caption in _captions(cells[i])]
            if captions and not listed:
                opened.sample(NO_CAPTION, f"{self.path}, line {line}")
                continue
            if not all(map(is_utf8, listed)):
                opened.sample(NOT_UTF8, f"{self.path}, line {line}")
                continue
            images.add(cells[image])
            texts.add(BORDER.join(listed))
            if label is not None:
                labels.append(cells[label])
        self._images, self._texts = images.packed(), texts.packed() if captions else None
        return labels

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Number, paths, captions and labels of the rows, and the sizes of some images."""
        columns = [self._images] + ([] if self._texts is None else [self._texts])
        content = [array for column in columns for array in (column.data, column.ends)]
        chosen = [self.where(index) for index in probed(len(self))]
        return {
            "samples": len(self),
            "content": hash_of(*content, self.labels, self.classes),
            "bytes of some images": hash_of(sizes_of(chosen)),
        }

    def where(self, index: int) -> str:
        """Return the path of the image."""
        return os.path.join(self.root, self._images[index])

    def read(self, index: int) -> Sample:
        """Read one row's image and captions, or raise BrokenSample where it cannot be."""
        return {
            "image": decode_file(self.where(index)),
            "captions": self.captions(index),
            "label": int(self.labels[index]),
        }

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of a sample, none where they are not read."""
        return () if self._texts is None else tuple(self._texts[index].split(BORDER))


def _no_rows(path: Path, opened: LeftOut) -> DataError:
    """Make the error for a table of which nothing is left."""
    if not opened.samples:
        return DataError("The table has a header but no rows.", where=str(path))
    reasons = ", ".join(f"{count} {reason}" for reason, count in opened.samples.items())
    return DataError(
        f"The table has no rows that count: {reasons}.",
        where="; ".join(opened.examples),
        do="Check image_key, caption_key (None: images alone) and sep.",
    )


def _captions(cell: str) -> list[str]:
    """Return the captions of a cell, which is one itself unless it is a JSON list of strings."""
    if cell.startswith("["):
        try:
            listed = json.loads(cell)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(caption, str) for caption in listed):
            return [caption.replace(BORDER, " ").strip() for caption in listed if caption.strip()]
    return [cell.replace(BORDER, " ")] if cell else []
