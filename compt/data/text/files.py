"""Text files, and what all sources that read text from files have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from compt.data._cache import key_of
from compt.data._storage import File, find, name_of, opened
from compt.data.file_source import FileSource
from compt.data.text._pieces import Piece, pieces
from compt.errors import ConfigError, DataError
from compt.interfaces import Text, TextSource
from compt.interfaces.data import NO_TEXT
from compt.interfaces.left_out import MAX_BROKEN, LeftOut

WHOLE = "files that the separator does not divide"
MOST_TIMES = 200
"""Characters for each byte of a file: text that people wrote is packed to a tenth at best."""
SLACK = 1 << 26
"""Characters that any file may have."""
CHUNK = 1 << 17
"""Characters read at a time."""


class Skipped(NamedTuple):
    """A document, or something else, that is left out."""

    reason: str
    where: str = ""
    is_document: bool = True


Read = Iterator[tuple[Piece | Skipped, int]]
"""Pieces of documents and what is left out, each with about how many bytes are read."""


class TextReader(TextSource):
    """A source of documents in files, which it reads one after the other."""

    format: ClassVar[str]
    """What tells it apart from other readers, for the name of the cache."""
    options: dict[str, Any]
    """The options that change what is read, for the name of the cache."""

    @abstractmethod
    def find(self, split: str, left_out: LeftOut) -> Sequence[File]:
        """Return the files of a split, in order, and count those that are left out."""

    @abstractmethod
    def read(self, file: File) -> Read:
        """Read one file."""

    def open(self, split: str) -> FileText:
        """Find the files of a split."""
        opened = LeftOut(max_broken=self.max_broken)
        return FileText(self, self.find(split, opened), opened)


class FileText(Text):
    """The documents of some files.

    Args:
        source: what reads them.
        files: at least one.
        opened: what was left out as they were found.
    """

    def __init__(self, source: TextReader, files: Sequence[File], opened: LeftOut) -> None:
        self.source, self.files, self._opened = source, tuple(files), opened
        self._left_out = opened.copy()
        self.where = name_of(self.files)
        self.num_bytes = sum(file.size for file in self.files)
        stamps = [(file.name, file.size, file.stamp) for file in self.files]
        self.fingerprint = key_of(source.format, source.options, stamps)

    @property
    def left_out(self) -> LeftOut:
        """What was left out as the files were found, and read so far."""
        return self._left_out

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
        self._left_out = self._opened.copy()
        for file in self.files:
            num_characters = 0
            for piece, position in self.source.read(file):
                self.num_read = done + min(position, file.size)
                if not isinstance(piece, Skipped):
                    num_characters += len(piece.text)
                    if num_characters > MOST_TIMES * position + SLACK:
                        raise _unpacks_to_too_much(file)
                    yield piece
                elif piece.is_document:
                    self.skipped += 1
                    self._left_out.sample(piece.reason, piece.where)
                else:
                    self._left_out.part(piece.reason)
            done += file.size


def _unpacks_to_too_much(file: File) -> DataError:
    return DataError(
        f"The file unpacks to more than {MOST_TIMES} times its {file.size / 1e6:.1f} MB.",
        where=file.name,
        do="It repeats itself, and may have been made to fill the disk. Where you trust it, unpack "
        "it yourself.",
    )


class TextFiles(FileSource, TextReader):
    """Plain text in UTF-8, compressed or not, where one file is one document.

    Line ends are read as a single line feed; a byte order mark is dropped.

    Args:
        separator: what stands between the documents of a file; a blank line is ``'\\n\\n'``.
        pattern: names of the files that count in a folder and those below it; compressed ones need
            no own pattern.
        max_broken: share of the documents that may be left out.
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
        max_broken: float = MAX_BROKEN,
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples, max_broken=max_broken)
        self.separator = "" if separator is None else text_option("separator", separator)
        self.pattern, self.cache_dir = text_option("pattern", pattern), cache_dir
        self.options = {"separator": self.separator}

    def find(self, split: str, left_out: LeftOut) -> Sequence[File]:
        """Return the files that the config names for a split."""
        return find(self.path(split), self.pattern, left_out)

    def read(self, file: File) -> Read:
        """Read a file chunk by chunk.

        Several separators with nothing but white space between them are one.
        """
        num_documents = 0
        with opened(file) as (text, raw):
            for piece in pieces(iter(lambda: text.read(CHUNK), ""), self.separator):
                num_documents += piece.last
                yield piece, raw.tell()
        if not num_documents:
            yield Skipped(NO_TEXT, file.name), file.size
        elif self.separator and num_documents == 1:
            yield Skipped(WHOLE, file.name, is_document=False), file.size


def text_option(name: str, value: Any) -> str:
    """Return an option that is a text, or raise ConfigError if it is none or empty."""
    if isinstance(value, str) and value:
        return value
    raise ConfigError(f"{name}={value!r} is not a text of one or more characters.")
