"""Skips and counts samples that cannot be read, and stops when they are too many."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from compt.data.images.decode import (
    DAMAGED,
    EMPTY,
    NO_FILE,
    NO_RANGE,
    TOO_LARGE,
    BrokenSample,
    decode,
    decode_file,
    to_rgb,
)
from compt.errors import DataError
from compt.interfaces import Images
from compt.interfaces.left_out import UNREADABLE, LeftOut, allowed, share

__all__ = ["BrokenSample", "Sample", "SkipBroken", "decode", "decode_file", "to_rgb"]

MAX_IN_A_ROW = 100
"""Broken samples one after the other that stop a run whatever their share: the root is wrong,
say.
"""
AT_A_TIME = 32
"""Samples that :meth:`SkipBroken.check` reads at a time from servers."""
FIRST = 8
"""Samples at the beginning that :meth:`SkipBroken.check` reads."""
NO_CAPTION = "without a caption"
NOT_UTF8 = "whose caption is not UTF-8"
BAD_JSON = "with a damaged JSON member"
REASONS = (
    UNREADABLE,
    NO_FILE,
    EMPTY,
    DAMAGED,
    TOO_LARGE,
    NO_RANGE,
    NO_CAPTION,
    NOT_UTF8,
    BAD_JSON,
)
"""Why a sample can be broken; any other reason counts as the first."""
UNREAD, FINE, BROKEN = 0, 1, 2
"""What is known of a sample; from ``BROKEN`` on, by which reason."""


class Sample(TypedDict):
    """One item of a split of images."""

    image: Image.Image
    """RGB."""
    captions: tuple[str, ...]
    """At least one, or none where the source has none."""
    label: int
    """An index into ``classes``, -1 for none."""


def is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates, as JSON may write them, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class SkipBroken(Images):
    """Images of which the next readable one takes the place of one that cannot be read.

    Each broken sample is counted once, across all workers of a data loader, in memory that they
    share. A subclass says how to read a sample and where it lies.

    Args:
        num_samples: length of the data set.
        max_broken: share of samples, of those there were before any was left out, that may be left
            out and broken; above it reading raises DataError.
        opened: what was left out as the data set was opened, besides these samples.
    """

    def __init__(
        self, num_samples: int, *, max_broken: float, opened: LeftOut | None = None
    ) -> None:
        self._opened = LeftOut() if opened is None else opened
        self.max_broken = self._opened.max_broken = share(max_broken)
        self._opened.total = num_samples + self._opened.num_samples
        self.known = torch.zeros(num_samples, dtype=torch.uint8).share_memory_()

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read one sample, or raise BrokenSample where it cannot be."""

    @abstractmethod
    def where(self, index: int) -> str:
        """The path of a sample, for messages."""

    @property
    def broken_count(self) -> int:
        """How many different samples were found broken so far, by all workers."""
        return int((self.known >= BROKEN).count_nonzero())

    @property
    def left_out(self) -> LeftOut:
        """What was left out on opening, and what was found broken so far, by all workers."""
        result = self._opened.copy()
        counts = torch.bincount(self.known, minlength=BROKEN).tolist()
        result.num_read = len(self) - counts[UNREAD] if counts[UNREAD] else None
        for reason, count in zip(REASONS, counts[BROKEN:], strict=False):
            result.sample(reason, count=count)
        return result

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample, or the next that can be read.

        Raises:
            DataError: too many are broken.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        for step in range(min(len(self), MAX_IN_A_ROW)):
            candidate = (index + step) % len(self)
            if self.known[candidate] >= BROKEN:
                continue
            sample = self._read(candidate)
            if sample is not None:
                return sample
            if self.broken_count > self._num_allowed:
                raise self._too_many(f"{self.broken_count} of {len(self)} samples", "so far ")
        raise self._too_many(f"{min(len(self), MAX_IN_A_ROW)} samples in a row", "")

    def check(self, samples: int = 200) -> int:
        """Read the first few samples and others evenly spaced, before anything is trained on them.

        Returns:
            How many of them are broken.

        Raises:
            DataError: more were left out on opening, or are broken, than ``max_broken`` allows;
                where not all samples were read, by more than chance explains (3 standard
                deviations).
        """
        self._opened.check()
        if samples >= len(self):
            chosen = list(range(len(self)))
        else:
            spaced = np.linspace(0, len(self) - 1, max(samples - FIRST, 1)).round().astype(int)
            chosen = sorted({*range(min(FIRST, samples)), *spaced.tolist()})
        broken = 0
        for start in range(0, len(chosen), AT_A_TIME):
            several = chosen[start : start + AT_A_TIME]
            self.fetch_ahead(several)
            broken += sum(self._read(index) is None for index in several)
        rate = min(self._num_allowed / max(len(self), 1), 1.0)
        chance = rate * (1 - rate) * len(chosen) if len(chosen) < len(self) else 0
        if broken > rate * len(chosen) + 3 * chance**0.5:
            raise self._too_many(f"{broken} of {len(chosen)} samples", "tried ")
        return broken

    def _read(self, index: int) -> Sample | None:
        """Read one sample and remember whether it could be, None where it could not."""
        try:
            sample = self.read(index)
        except BrokenSample as error:
            reason = error.reason if error.reason in REASONS else UNREADABLE
            self.known[index] = BROKEN + REASONS.index(reason)
            return None
        self.known[index] = FINE
        return sample

    @property
    def _num_allowed(self) -> float:
        """How many of these samples may be broken, beside what was left out on opening."""
        return self._opened.max_broken * self._opened.total - self._opened.num_samples

    def _too_many(self, how_many: str, when: str) -> DataError:
        lines = list(self._opened.examples)
        for index in (self.known >= BROKEN).nonzero()[: 3 - len(lines), 0].tolist():
            try:
                self.read(index)
            except BrokenSample as error:
                lines.append(f"{self.where(index)} ({error})")
        others = self._opened.num_samples
        besides = f" Besides, {others} were left out on opening." if others else ""
        return DataError(
            f"{how_many} {when}cannot be read; {allowed(self._opened.max_broken)}.{besides}",
            where="; ".join(lines),
            do="Repair or remove these files, check the paths and the root folder, or raise "
            "max_broken.",
        )
