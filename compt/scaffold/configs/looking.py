"""Look at data through the sources that will read it, for a bounded time."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from compt.errors import ConfigError, DataError, visible
from compt.interfaces import DataSource, Images, SeenData, Text, TokenSource
from compt.interfaces.left_out import left_out
from compt.registry import DATA
from compt.report.format import left_out_lines

MAX_SAMPLES = 500
MAX_SECONDS = 10.0
MAX_CHARACTERS = 20_000_000
SHOWN_SAMPLES = 24
SHOWN_LINES = 40


@dataclass(frozen=True)
class Shown:
    """One sample of a page."""

    image: Image.Image
    text: str = ""


@dataclass(frozen=True)
class Look(SeenData):
    """What data looks like, for a starter and for people."""

    facts: tuple[str, ...] = ()
    """What was seen, a line each, for people."""
    shown: tuple[Shown, ...] = ()
    """Some of the images."""
    lines: tuple[str, ...] = ()
    """Some lines of the text."""


def source_of(config: Mapping[str, Any]) -> DataSource:
    """Build the source that the data of a config names."""
    kind = config["type"]
    if kind not in DATA:
        raise ConfigError(
            f"There is no data source '{kind}'.",
            where="--data-type",
            do=f"One of {', '.join(DATA.names())}.",
        )
    source: DataSource = DATA.build(dict(config))
    return source


def look(config: Mapping[str, Any], *, captions: bool) -> Look:
    """Open the training split of some data, and look at samples of it.

    Args:
        config: of the data, as a config has it.
        captions: whether images are to have them.

    Raises:
        ComptError: the data is missing, damaged or not what it was taken for.
    """
    source = source_of(config)
    if "image" in source.provides:
        images: Images = source.open("train", captions=captions)  # type: ignore[call-arg]
        drawn = not getattr(source, "files", None)
        return look_at_images(images, drawn=drawn)
    if isinstance(source, TokenSource):
        tokens = source.open("train")
        return Look(num_bytes=tokens.num_tokens, facts=(f"{tokens.num_tokens:,} tokens",))
    return look_at_text(source.open("train"))


def look_at_images(images: Images, *, drawn: bool = False) -> Look:
    """Look at evenly spaced images.

    Args:
        images: of one split.
        drawn: whether their source draws them at any size that is asked for.
    """
    if not len(images):
        raise DataError("There are no images.", where="--data")
    seen = _Seen()
    started = time.monotonic()
    for index in _spread(len(images), MAX_SAMPLES):
        seen.add(images[index])
        if time.monotonic() - started > MAX_SECONDS:
            break
    return seen.look(images, drawn=drawn)


def look_at_text(text: Text) -> Look:
    """Look at the documents from the first one on."""
    lengths: list[int] = []
    lines: list[str] = []
    length = 0
    started = time.monotonic()
    ended = True
    for piece, last in text.pieces():
        if len(lines) < SHOWN_LINES and length == 0:
            lines += [line[:100] for line in piece.splitlines()[:8]] + [""]
        length += len(piece)
        if last:
            lengths.append(length)
            length = 0
        is_much = sum(lengths) + length > MAX_CHARACTERS
        if is_much or time.monotonic() - started > MAX_SECONDS:
            ended = False
            break
    lengths += [length] if length else []
    if not lengths:
        raise DataError("There is no text.", where=text.where)
    num_seen = sum(lengths)
    share = 1.0 if ended else text.num_read / (text.num_bytes or text.num_read or 1)
    num_characters = int(num_seen / (share or 1.0))
    about = "" if ended else "about "
    facts = [
        f"{text.num_bytes / 1e6:,.1f} MB of files, {about}{num_characters:,} characters; "
        f"{num_seen:,} of them looked at",
        f"characters a document: {_spread_text(lengths)}, of {len(lengths):,}",
    ]
    facts += left_out_lines({"train": text.left_out.to_json()})
    return Look(len(lengths), num_characters, facts=tuple(facts), lines=tuple(lines))


@dataclass
class _Seen:
    """Collects what is seen of images."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    num_captions: list[int] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    drawings: Counter[str] = field(default_factory=Counter)
    shown: list[Shown] = field(default_factory=list)

    def add(self, sample: Mapping[str, Any]) -> None:
        image, captions = sample["image"], sample["captions"]
        self.sizes.append(image.size)
        self.words += [len(caption.split()) for caption in captions]
        self.num_captions.append(len(captions))
        self.labels[sample["label"]] += 1
        self.drawings[hashlib.sha256(image.resize((32, 32)).tobytes()).hexdigest()] += 1
        self.shown.append(Shown(image.copy(), captions[0] if captions else ""))
        if len(self.shown) > 4 * SHOWN_SAMPLES:
            self.shown = self.shown[::2]

    def look(self, images: Images, *, drawn: bool) -> Look:
        widths, heights = zip(*self.sizes, strict=True)
        shorter = [min(size) for size in self.sizes]
        num_again = sum(self.drawings.values()) - len(self.drawings)
        facts = [f"{len(images):,} images; {len(self.sizes):,} of them, evenly spaced, looked at"]
        if not drawn:
            facts.append(f"pixels wide: {_spread_text(widths)}; high: {_spread_text(heights)}")
        if self.words:
            facts.append(f"words a caption: {_spread_text(self.words)}")
            if max(self.num_captions) > 1:
                facts.append(f"captions an image: {_spread_text(self.num_captions)}")
        if images.classes:
            names = visible(", ".join(images.classes[:4]))
            facts.append(f"{len(images.classes):,} classes, such as {names}")
        if num_again:
            facts.append(f"{num_again:,} of those looked at show the same as another")
        lacks = left_out(images)
        lacks.check("train")
        facts += left_out_lines({"train": lacks.to_json()})
        return Look(
            len(images),
            short_side=None if drawn else int(np.median(shorter)),
            caption_words=int(np.quantile(self.words, 0.95)) if self.words else 0,
            facts=tuple(facts),
            shown=tuple(self.shown[index] for index in _spread(len(self.shown), SHOWN_SAMPLES)),
        )


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many numbers below ``count``, evenly spaced."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, most))]


def _spread_text(values: Sequence[int]) -> str:
    """Write the least, the middle and the most of some numbers."""
    low, middle, high = min(values), int(np.median(values)), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, median {middle:,}"
