"""Text files, and what all sources that read text from files have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from compt.data._cache import key_of
from compt.data.file_source import FileSource
from compt.data.text._find import File, find, name_of, opened
from compt.data.text._pieces import Piece, pieces
from compt.errors import ConfigError
from compt.interfaces import Text, TextSource

CHUNK = 1 << 17
"""Characters read at a time."""
Read = Iterator[tuple[Piece | None, int]]
"""Pieces of documents, None for what is left out, each with about how many bytes are read."""


class TextReader(TextSource):
    """A source of documents in files, which it reads one after the other."""

    format: ClassVar[str]
    """What tells it apart from other readers, for the name of the cache."""
    options: dict[str, Any]
    """The options that change what is read, for the name of the cache."""

    @abstractmethod
    def find(self, split: str) -> Sequence[File]:
        """Return the files of a split, in order."""

    @abstractmethod
    def read(self, file: File) -> Read:
        """Read one file."""

    def open(self, split: str) -> FileText:
        """Find the files of a split."""
        return FileText(self, self.find(split))


class FileText(Text):
    """The documents of some files.

    Args:
        source: what reads them.
        files: at least one.
    """

    def __init__(self, source: TextReader, files: Sequence[File]) -> None:
        self.source, self.files = source, tuple(files)
        self.where = name_of(self.files)
        self.num_bytes = sum(file.size for file in self.files)
        stamps = [(file.name, file.size, file.stamp) for file in self.files]
        self.fingerprint = key_of(source.format, source.options, stamps)

    def __iter__(self) -> Iterator[str]:
        """Yield whole documents."""
        parts: list[str] = []
        for text, ends in self.pieces():
            parts.append(text)
            if ends:
                yield "".join(parts)
                parts = []

    def pieces(self) -> Iterator[Piece]:
        """Yield documents in pieces, while ``num_read`` and ``skipped`` tell how far it is.

        Raises:
            DataError: a file cannot be read.
        """
        done = self.num_read = self.skipped = 0
        for file in self.files:
            for piece, position in self.source.read(file):
                self.num_read = done + min(position, file.size)
                if piece is None:
                    self.skipped += 1
                else:
                    yield piece
            done += file.size


class TextFiles(FileSource, TextReader):
    """Plain text in UTF-8, compressed or not, where one file is one document.

    Line ends are read as a single line feed; a byte order mark is dropped.

    Args:
        separator: what stands between the documents of a file; a blank line is ``'\\n\\n'``.
        pattern: names of the files that count in a folder and those below it; compressed ones need
            no own pattern.
        num_samples: size of the training split in blocks, for plans.
        cache_dir: where tokens are kept.
        files: split -> file, folder, pattern or list of these; fsspec URLs too.

    Raises:
        ConfigError: an option that cannot be.
        DataError: no such files; while reading, a file that is damaged or not UTF-8.
    """

    format = "text"

    def __init__(
        self,
        *,
        separator: str | None = None,
        pattern: str = "*.txt",
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples)
        self.separator = "" if separator is None else text_option("separator", separator)
        self.pattern, self.cache_dir = text_option("pattern", pattern), cache_dir
        self.options = {"separator": self.separator}

    def find(self, split: str) -> Sequence[File]:
        """Return the files that the config names for a split."""
        return find(self.path(split), self.pattern)

    def read(self, file: File) -> Read:
        """Read a file chunk by chunk."""
        with opened(file) as (text, raw):
            for piece in pieces(iter(lambda: text.read(CHUNK), ""), self.separator):
                yield piece, raw.tell()


def text_option(name: str, value: Any) -> str:
    """Return an option that is a text, or raise ConfigError if it is none or empty."""
    if isinstance(value, str) and value:
        return value
    raise ConfigError(f"{name}={value!r} is not a text of one or more characters.")
