"""Skips and counts samples that cannot be read, and stops when they are too many."""

from __future__ import annotations

import io
from abc import abstractmethod
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from compt.errors import ConfigError, DataError
from compt.interfaces import Images

MAX_IN_A_ROW = 100
"""Broken samples one after the other that stop a run whatever their share: the root is wrong,
say.
"""


FIRST = 8
"""Samples at the beginning that :meth:`SkipBroken.check` reads."""


class Sample(TypedDict):
    """One item of a split of images."""

    image: Image.Image
    """RGB."""
    captions: tuple[str, ...]
    """At least one, or none where the source has none."""
    label: int
    """An index into ``classes``, -1 for none."""


class BrokenSample(Exception):
    """A sample that cannot be read, and why."""


def decode(data: bytes) -> Image.Image:
    """Decode an image file completely, to RGB.

    Raises:
        BrokenSample: it is no image, damaged or cut short.
    """
    if not data:
        raise BrokenSample("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return to_rgb(image)
    except Exception as error:  # decoders raise whatever they stumble over
        raise BrokenSample(f"{type(error).__name__}: {error}") from error


def decode_file(path: str) -> Image.Image:
    """Read and decode an image file completely, to RGB.

    Raises:
        BrokenSample: it cannot be read, is no image, damaged or cut short.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise BrokenSample(getattr(error, "strerror", None) or str(error)) from error
    return decode(data)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB.

    Transparent becomes white, 16 bits are scaled to 8, floats are in [0, 1].
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        values = values // 257 if values.max(initial=0) > 255 else values
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        levels = (np.asarray(image).clip(0, 1) * 255).round()
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


class SkipBroken(Images):
    """Images of which the next readable one takes the place of one that cannot be read.

    Each broken sample is counted once, across all workers of a data loader, in memory that they
    share. A subclass says how to read a sample and where it lies.

    Args:
        num_samples: length of the data set.
        max_broken: share of broken samples above which reading raises DataError.
    """

    def __init__(self, num_samples: int, *, max_broken: float) -> None:
        if not isinstance(max_broken, int | float) or not 0 <= max_broken <= 1:
            raise ConfigError(
                f"max_broken={max_broken!r} is no share from 0 to 1.",
                do="0.01 allows one in a hundred.",
            )
        self.max_broken = max_broken
        self._broken = torch.zeros(num_samples, dtype=torch.uint8).share_memory_()

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read one sample, or raise BrokenSample where it cannot be."""

    @abstractmethod
    def where(self, index: int) -> str:
        """The path of a sample, for messages."""

    @property
    def broken_count(self) -> int:
        """How many different samples were found broken so far, by all workers."""
        return int(self._broken.count_nonzero())

    def __len__(self) -> int:
        return len(self._broken)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample, or the next that can be read.

        Raises:
            DataError: too many are broken.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        for step in range(min(len(self), MAX_IN_A_ROW)):
            candidate = (index + step) % len(self)
            if self._broken[candidate]:
                continue
            try:
                return self.read(candidate)
            except BrokenSample:
                self._broken[candidate] = 1
                if self.broken_count > self.max_broken * len(self):
                    raise self._too_many(
                        f"{self.broken_count} of {len(self)} samples", "so far "
                    ) from None
        raise self._too_many(f"{min(len(self), MAX_IN_A_ROW)} samples in a row", "")

    def check(self, samples: int = 200) -> int:
        """Read the first few samples and others evenly spaced, before anything is trained on them.

        Returns:
            How many of them are broken.

        Raises:
            DataError: their share exceeds ``max_broken``; where not all samples were read, by more
                than chance explains (3 standard deviations).
        """
        if samples >= len(self):
            chosen = list(range(len(self)))
        else:
            spaced = (
                np.linspace(0, len(self) - 1, max(samples - FIRST, 1)).round().astype(int).tolist()
            )
            chosen = sorted({*range(min(FIRST, samples)), *spaced})
        broken = 0
        for index in chosen:
            try:
                self.read(index)
            except BrokenSample:
                self._broken[index] = 1
                broken += 1
        chance = (
            self.max_broken * (1 - self.max_broken) * len(chosen) if len(chosen) < len(self) else 0
        )
        if broken > self.max_broken * len(chosen) + 3 * chance**0.5:
            raise self._too_many(f"{broken} of {len(chosen)} samples", "tried ")
        return broken

    def _too_many(self, how_many: str, when: str) -> DataError:
        lines = []
        for index in self._broken.nonzero()[:3, 0].tolist():
            try:
                self.read(index)
            except BrokenSample as error:
                lines.append(f"{self.where(index)} ({error})")
        allowed = f"max_broken={self.max_broken:g} allows {100 * self.max_broken:.3g} %"
        return DataError(
            f"{how_many} {when}cannot be read; {allowed}.",
            where="; ".join(lines),
            do="Repair or remove these files, check the paths and the root folder, or raise "
            "max_broken.",
        )
