"""The interfaces of data sources, which open images, text and tokens split by split."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from compt.errors import ConfigError, did_you_mean
from compt.interfaces.fingerprint import default_fingerprint
from compt.interfaces.left_out import MAX_BROKEN, UNREADABLE, LeftOut, share
from compt.interfaces.plugin import Plugin

NO_TEXT = "without text"
"""Reason of documents that are empty, blank or no text."""


class DataSource(Plugin, ABC):
    """A source of data that a config names, opened split by split.

    The constructor takes the config's options by keyword. It reads no data, as plans are made where
    there is none.

    Args:
        num_samples: size of the training split, for plans made where the data is not.
        max_broken: share of a split's samples, rows or documents that may be left out or replaced;
            a chain does not begin where it is more.

    Raises:
        ConfigError: num_samples is no whole number from 1 on, or max_broken no share.
    """

    provides: frozenset[str] = frozenset()
    """What samples hold, as paradigms ask for it.

    One or more of 'image', 'captions', 'label', 'negative', 'text', 'tokens'. The class names all
    that it can give; a source whose options leave something out says so in an attribute of its own.
    """
    splits: tuple[str, ...]
    """Names of its splits, 'train' among them, validation splits in the order of the report."""
    cache_dir: str | Path | None = None
    """Where what is made of the data once, such as tokens, is kept.

    None stands for COMPT_CACHE_DIR, or else the user's cache folder.
    """

    licence: str = ""
    """Of the data, '' where the source does not know it; model cards name it."""
    max_broken: float = MAX_BROKEN

    def __init__(self, *, num_samples: int | None = None, max_broken: float = MAX_BROKEN) -> None:
        if num_samples is not None and not _counts(num_samples):
            raise ConfigError(f"num_samples={num_samples!r} is not a number of samples from 1 on.")
        self.declared_samples = None if num_samples is None else int(num_samples)
        self.max_broken = share(max_broken)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that are measured on."""
        return tuple(split for split in self.splits if split != "train")

    def check_split(self, split: str) -> None:
        """Raise ConfigError, with the nearest names, unless the source has this split."""
        if split not in self.splits:
            raise ConfigError(
                f"The data has no split '{split}'.{did_you_mean(split, self.splits)}",
                do=f"Splits: {', '.join(self.splits) or 'none'}.",
            )

    def num_samples(self, split: str) -> int | None:
        """Return the number of samples of a split, None where only opening it can tell."""
        return self.declared_samples if split == "train" else None

    @abstractmethod
    def open(self, split: str) -> Any:
        """Open one split, always with the same samples in the same order.

        Raises:
            ConfigError: there is no such split, or an option that cannot be.
            DataError: the data is missing or damaged.
        """


def _counts(value: Any) -> bool:
    """Tell whether a value is a whole number from 1 on, 1e6 among them."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 1 and value == int(value)


class Images(Dataset[Any], ABC):
    """One split of a source of images, by number.

    Items are ``dict(image=..., captions=(str, ...), label=int)``: a PIL image in RGB of any size;
    captions, none where the source has none; an index into ``classes``, -1 for none. A source that
    provides 'negative' adds ``negative=str``, its first caption made wrong by few words, to samples
    of held-out splits that have one. Items are the same at every call. The data set pickles, as
    worker processes take copies.
    """

    classes: tuple[str, ...] = ()
    """Names of this split's classes."""
    max_broken: float | None = None
    """Share of the samples that may be left out; where it is None, that of the source."""

    @property
    def broken_count(self) -> int:
        """How many samples could not be read so far, by all worker processes."""
        return 0

    @property
    def left_out(self) -> LeftOut:
        """What of the split is left out, replaced or cut so far, by all worker processes.

        Override it where more is known than ``broken_count`` says.
        """
        result = LeftOut(len(self), MAX_BROKEN if self.max_broken is None else self.max_broken)
        result.sample(UNREADABLE, count=self.broken_count)
        return result

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What tells the split apart from a changed one, as JSON types by name.

        Such as counts, sizes of files and hashes of what decides the samples, which need not be
        read for it. Override it where more is known than length and classes.
        """
        return default_fingerprint(self)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

    def fetch_ahead(self, indices: Sequence[int], *, images: bool = True) -> None:
        """Read what these samples are made of at a time, where that is faster than one by one.

        Loaders call it before they read a batch. Override it where samples lie on servers.

        Args:
            indices: of the samples.
            images: whether their images are read, and not their captions alone.
        """

    def check(self) -> int:
        """Read some samples before anything is trained on them.

        Returns:
            How many of them are broken.

        Raises:
            DataError: too many are.
        """
        return 0


class ImageSource(DataSource):
    """A source of images, with captions and labels where ``provides`` names them."""

    provides = frozenset({"image"})

    @abstractmethod
    def open(self, split: str, *, captions: bool = True, image_size: int | None = None) -> Images:
        """Open one split.

        Args:
            split: one of ``splits``.
            captions: whether they are read; where not, samples need none.
            image_size: height and width in pixels that models take, for sources that draw their
                images; others give them as they are.
        """


class Text(ABC):
    """The documents of one split, read from the beginning at every iteration."""

    fingerprint: str
    """Changes whenever the documents do, and differs between splits; tokens are kept under it."""
    where: str = ""
    """What it is read from, for messages."""
    num_bytes: int = 0
    """Size of what is read, 0 where it is not known."""
    num_read: int = 0
    """How much of it was read so far, about."""
    skipped: int = 0
    """Documents left out so far."""

    @property
    def left_out(self) -> LeftOut:
        """What was left out, replaced or cut so far, where ``total`` is counted by who reads it.

        Override it where more is known than ``skipped`` says.
        """
        result = LeftOut()
        result.sample(NO_TEXT, count=self.skipped)
        return result

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Yield the documents, one after the other."""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Yield the documents in pieces, and with each whether its document ends there.

        Override it where a document may be too large for memory. Blank documents are left out.
        """
        self.skipped = 0
        for document in self:
            if document.strip():
                yield document, True
            else:
                self.skipped += 1


class TextSource(DataSource):
    """A source of documents, which are tokenised once and then kept."""

    provides = frozenset({"text"})

    @abstractmethod
    def open(self, split: str) -> Text:
        """Open one split."""


@dataclass(frozen=True)
class TokenSpan:
    """``count`` tokens of a NumPy integer type in a file, from a byte on.

    The file is a local path, or the URL of one on a server, as fsspec reads it.
    """

    file: Path | str
    dtype: str
    offset: int
    count: int


@dataclass(frozen=True)
class Tokens:
    """The tokens of one split, one sequence that lies in several files.

    ``num_bytes`` counts the UTF-8 bytes of their text, None where that is not known; ``skipped``
    the documents left out. ``left_out`` says why they are, and what else is; None where no more is
    known. ``digest`` changes whenever the tokens do, '' where only their sizes are known.
    """

    spans: tuple[TokenSpan, ...]
    num_bytes: int | None = None
    skipped: int = 0
    left_out: LeftOut | None = None
    digest: str = ""

    @property
    def num_tokens(self) -> int:
        """Tokens of all files, end marks with them."""
        return sum(span.count for span in self.spans)


class TokenSource(DataSource):
    """A source of tokens that were made elsewhere, with what separates documents."""

    provides = frozenset({"tokens"})

    @abstractmethod
    def open(self, split: str) -> Tokens:
        """Open one split."""
