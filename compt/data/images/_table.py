"""Reads the rows of a CSV or TSV file, and counts those that cannot be used."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from compt.errors import ConfigError, DataError, did_you_mean
from compt.interfaces import foreign
from compt.interfaces.left_out import LeftOut

ALIASES = {"image": "filepath", "caption": "title"}
"""open_clip's names for the columns, read where the default names do not occur."""
MAX_CELL = 2**24
NO_IMAGE = "without an image path"
TOO_LONG = "with more cells than the header"
HEADER_AGAIN = "that repeat the header"
SWALLOWED = "inside another row's cell in quote marks"
BLANK = "blank rows"
QUOTED = "cells in quote marks that are read as text (quoting=True takes the marks off)"


class Table:
    """The rows of a table, read one by one, without blank lines.

    Args:
        path: of the table, UTF-8 with a header line.
        sep: what separates cells; a tab or a comma by default, as the header has it.
        quoting: whether cells may stand in quote marks; see CsvSource.

    Raises:
        ConfigError: an option that cannot be.
        DataError: it is missing, empty or not UTF-8; while reading, a quote mark is not closed.
    """

    def __init__(self, path: Path, sep: str | None, quoting: bool | None) -> None:
        _check_options(sep, quoting)
        self.path = path
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline(MAX_CELL)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
        except OSError as error:
            raise DataError(
                f"The table cannot be read: {error}.", where=str(path), do="Check the path."
            ) from error
        if not first.strip():
            raise DataError(
                "The table is empty.", where=str(path), do="Its first line must name the columns."
            )
        tabs = path.suffix.lower() in (".tsv", ".tab") or first.count("\t") > first.count(",")
        self.sep = sep or ("\t" if tabs else ",")
        if quoting is None:
            quoting = self.sep != "\t" or any(map(_is_quoted, first.strip().split(self.sep)))
        self.quoting = quoting
        try:
            self.header = self._cells(next(self._reader([first])))
        except csv.Error as error:
            raise _not_read(path, error, 1, 1) from error
        self.width = len(self.header)

    def column(self, key: str) -> int:
        """Find a column by its name or, for default names, by open_clip's name for it."""
        for name in (key, ALIASES.get(key, key)):
            if self.header.count(name) > 1:
                raise DataError(
                    f"The table has {self.header.count(name)} columns '{name}'.",
                    where=str(self.path),
                    do="Give each a name of its own.",
                )
            if name in self.header:
                return self.header.index(name)
        raise DataError(
            f"The table has no column '{key}'.{did_you_mean(key, self.header)}",
            where=str(self.path),
            do=f"Its columns, separated by {self.sep!r}: {', '.join(self.header)}. "
            "Name them with image_key, caption_key (None: images alone) and label_key; the "
            "separator with sep.",
        )

    def counted(self, image: int, opened: LeftOut) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that have an image path, as line and cells, and count the others."""
        for line, row in self._rows():
            cells = self._cells(row)
            opened.part(QUOTED, 0 if self.quoting else sum(map(_is_quoted, cells)))
            if not any(cells):
                opened.part(BLANK)
                continue
            swallowed = self._swallowed(cells, image)
            opened.sample(SWALLOWED, f"{self.path}, from line {line}", swallowed)
            cells += [""] * (self.width - len(cells))
            if reason := self._why_not(cells, image):
                opened.sample(reason, f"{self.path}, line {line}")
            else:
                yield line, cells

    def _why_not(self, cells: Sequence[str], image: int) -> str:
        """Return why a row does not count, '' where it does."""
        if any(cells[self.width :]):
            return TOO_LONG
        if cells == self.header:
            return HEADER_AGAIN
        return "" if cells[image] else NO_IMAGE

    def _swallowed(self, cells: Sequence[str], image: int) -> int:
        """Count the lines within a cell that look like rows, with an image path of the same kind.

        A quote mark that opens a cell and has a partner by accident makes one cell of all rows
        between them.
        """
        many = [cell.splitlines()[1:] for cell in cells if "\n" in cell]
        kinds = {os.path.splitext(cell)[1].lower() for cell in cells[image : image + 1]} - {""}
        rows = (line.split(self.sep) for lines in many for line in lines)
        return sum(_kind(row, image) in kinds for row in rows)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows below the header, each with the line it begins in."""
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader, line = self._reader(foreign.lines(file, self.path)), 1
            try:
                for row in reader:
                    if row and line > 1:
                        yield line, row
                    line = reader.line_num + 1
            except UnicodeDecodeError as error:
                raise _not_utf8(self.path, error) from error
            except csv.Error as error:
                raise _not_read(self.path, error, line, reader.line_num) from error

    def _reader(self, lines: Iterable[str]) -> Any:
        # Not strict, a quote mark that is never closed would make one cell of all rows below it.
        return csv.reader(
            lines,
            delimiter=self.sep,
            quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
            strict=True,
        )

    def _cells(self, row: Sequence[str]) -> list[str]:
        return [cell.strip() for cell in row]


def _check_options(sep: Any, quoting: Any) -> None:
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1):
        raise ConfigError(f"sep={sep!r} is not one character.", where="csv")
    if quoting is not None and not isinstance(quoting, bool):
        raise ConfigError(
            f"quoting={quoting!r} is neither True nor False.",
            where="csv",
            do="False: quote marks are text.",
        )


def _is_quoted(cell: str) -> bool:
    cell = cell.strip()
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _kind(cells: Sequence[str], image: int) -> str:
    """Return the extension of the image path in a line's cells, '' where it has none."""
    return os.path.splitext(cells[image].strip())[1].lower() if image < len(cells) else ""


def _not_read(path: Path, error: csv.Error, first: int, last: int) -> DataError:
    """Make the error for a row between two lines, in what csv's messages mean."""
    fault = str(error)
    if "unexpected end" in fault:
        fault = "a quote mark is never closed"
    elif "expected after" in fault:
        fault = "text follows the quote mark that ends a cell"
    return DataError(
        f"The table cannot be read: {fault}, in the row that begins in line {first}.",
        where=f"{path}, lines {first} to {last}",
        do="A quote mark at the beginning of a cell needs one at its end, and those within are "
        "doubled. Where quote marks are text, set quoting=False.",
    )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """Make the error for a table that is not UTF-8, with the line."""
    with path.open("rb") as file:
        line = next((n for n, raw in enumerate(file, 1) if not _decodes(raw)), 1)
    return DataError(
        f"The table cannot be read: it is not UTF-8, 0x{error.object[error.start]:02x}.",
        where=f"{path}, line {line}",
        do="Convert it: iconv -f LATIN1 -t UTF-8, or from UTF-16.",
    )


def _decodes(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
