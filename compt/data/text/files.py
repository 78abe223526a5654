"""Text files, and what all sources of text have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from compt.data._options import text_option
from compt.data.text._find import File, find, name_of, opened
from compt.data.text._pieces import Piece, pieces

CHUNK = 1 << 17
"""Characters read at a time."""


class Source(ABC):
    """The documents of one split.

    Args:
        files: what they are read from, in order.
        options: those that change what is read, for the name of the cache.
    """

    kind: ClassVar[str]

    def __init__(self, files: Sequence[File], **options: Any) -> None:
        self.files, self.options = tuple(files), options
        self.total = sum(file.size for file in files)
        """Bytes of all files."""
        self.done = 0
        """Bytes read so far, about."""
        self.skipped = 0
        """Rows or files left out so far, as they hold no text."""

    @property
    def where(self) -> str:
        """The first file, and how many there are."""
        return name_of(self.files)

    def pieces(self) -> Iterator[Piece]:
        """All documents, each in one or more pieces; ``done`` and ``skipped`` tell how far it is.

        Raises:
            DataError: a file cannot be read.
        """
        before = self.skipped = 0
        for file in self.files:
            for piece, position in self.read(file):
                self.done = before + min(position, file.size)
                yield piece
            before += file.size

    @abstractmethod
    def read(self, file: File) -> Iterator[tuple[Piece, int]]:
        """The pieces of a file, each with about how many bytes of the file are read."""


class TextFiles(Source):
    """Plain text in UTF-8, compressed or not; one file is one document.

    Line ends are read as a single line feed; a byte order mark is dropped.

    Args:
        paths: file, folder, pattern or list of these; fsspec URLs too.
        split: not read.
        separator: what stands between the documents of a file; a blank line is ``'\\n\\n'``.
        pattern: names of the files that count in a folder and those below it; compressed ones need
            no own pattern.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files; while reading, a file that is damaged or not UTF-8.
    """

    kind = "text"

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        split: str,
        *,
        separator: str | None = None,
        pattern: str = "*.txt",
    ) -> None:
        self.separator = (
            text_option(self.kind, "separator", separator) if separator is not None else ""
        )
        super().__init__(
            find(paths, text_option(self.kind, "pattern", pattern)), separator=self.separator
        )

    def read(self, file: File) -> Iterator[tuple[Piece, int]]:
        """Read a file chunk by chunk."""
        with opened(file) as (text, raw):
            for piece in pieces(iter(lambda: text.read(CHUNK), ""), self.separator):
                yield piece, raw.tell()
