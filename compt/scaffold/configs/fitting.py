"""Choose sizes, batches and budgets that fit some data, with the reason of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from compt.errors import ConfigError
from compt.scaffold.configs.looking import Look

SIZES: Mapping[str, Mapping[str, str]] = {
    "clip": {
        "tiny": "64x3,128x4,256x6",
        "small": "192x6,320x8,512x12",
        "base": "256x8,512x8,768x12",
    },
    "mae": {
        "tiny": "64x4,96x6,160x8",
        "small": "192x6,256x10,384x12",
        "base": "256x8,512x8,768x12",
    },
    "causal_lm": {
        "tiny": "64x3,96x4,160x5",
        "small": "192x6,256x10,384x12",
        "base": "256x8,512x8,768x12",
    },
}
"""Widths and layers of the members, by paradigm and preset."""
LARGEST_IMAGE = {"tiny": 64, "small": 128, "base": 224}
LARGEST_BATCH = {"tiny": 128, "small": 256, "base": 512}
IMAGE_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
SHARES = (1.0, 1 / 4, 3 / 16)
"""Budgets of the members by the first one's, of arXiv 2604.12391; later ones take the last."""
ENOUGH = 2000
"""Iterations of the first member that are aimed at, so that small data is seen often enough."""
EPOCHS = (2, 48)
CONTEXT = {"tiny": 128, "small": 256, "base": 512}
FEWEST = 16
"""Samples that a config can be fitted to."""
MAX_CONTEXT = 77
"""Tokens that open_clip's texts have at most."""


@dataclass(frozen=True)
class Size:
    """Width and layers of one member."""

    width: int
    layers: int

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.width}x{self.layers}"


@dataclass(frozen=True)
class Fit:
    """What a config says beside its data."""

    sizes: tuple[Size, ...]
    head: int
    """Width of an attention head, the same in all members."""
    batch_size: int
    epochs: tuple[float, ...]
    image_size: int = 0
    patch: int = 0
    context: int = 0
    reasons: Mapping[str, str] | None = None
    """Why, by the name of the value."""

    def times(self, factor: float, why: str) -> Fit:
        """Return the same with budgets so many times as long, for another reason."""
        epochs = tuple(float(f"{epoch * factor:.2g}") for epoch in self.epochs)
        return replace(self, epochs=epochs, reasons={**(self.reasons or {}), "epochs": why})


def fit(paradigm: str, look: Look, *, sizes: str | None = None, epochs: float | None = None) -> Fit:
    """Fit a chain to data.

    Args:
        paradigm: one of ``SIZES``.
        look: at the training data.
        sizes: a preset, or widths and layers such as '64x3,128x4'; None to choose a preset.
        epochs: of the first member; None to choose.

    Raises:
        ConfigError: the sizes are none, or the epochs no number above 0.
    """
    preset = sizes if sizes in LARGEST_IMAGE else "tiny"
    members = parse_sizes(
        sizes if sizes and sizes not in LARGEST_IMAGE else SIZES[paradigm][preset]
    )
    reasons: dict[str, str] = {}
    image_size = patch = 0
    if paradigm == "causal_lm":
        context = CONTEXT[preset]
        num_samples = look.num_bytes // context
        batch_size = min(_batch(num_samples, 8, 200), LARGEST_BATCH[preset] // 4)
    else:
        image_size, patch = _image(look, preset, reasons)
        context = _context(look, reasons)
        num_samples = look.num_samples
        batch_size = min(_batch(num_samples, 32, 50), LARGEST_BATCH[preset])
    reasons["batch"] = f"{num_samples // batch_size:,} iterations an epoch"
    reasons["samples"] = f"{num_samples:,} {'blocks' if paradigm == 'causal_lm' else 'images'}"
    return Fit(
        members,
        _head(members),
        batch_size,
        _epochs(epochs, num_samples // batch_size, len(members), reasons),
        image_size,
        patch,
        context,
        reasons,
    )


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Read widths and layers, '64x3,128x4' for two members.

    Raises:
        ConfigError: they are none, or not in ascending order.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    matches = [re.fullmatch(r"(\d+)x(\d+)", part) for part in parts]
    if not parts or not all(matches):
        raise ConfigError(
            f"'{text}' are no sizes.",
            where="--sizes",
            do="tiny, small, base, or widths and layers from small to large: 64x3,128x4,256x6.",
        )
    sizes = tuple(Size(*map(int, match.groups())) for match in matches if match)
    for smaller, larger in pairwise(sizes):
        if larger.width < smaller.width or larger.layers < smaller.layers or larger == smaller:
            raise ConfigError(
                f"A member {larger.name} cannot grow from {smaller.name}.",
                where="--sizes",
                do="Neither width nor layers may fall from one member to the next.",
            )
    return sizes


def _head(sizes: Sequence[Size]) -> int:
    """Return the widest usual head that divides all widths, as it has to be one for all."""
    wide = [64] if min(size.width for size in sizes) >= 192 else []
    for head in [*wide, 32, 16, 8]:
        if all(size.width % head == 0 for size in sizes):
            return head
    widths = ", ".join(str(size.width) for size in sizes)
    raise ConfigError(
        f"No attention head fits all widths: {widths}.",
        where="--sizes",
        do="Give multiples of 32, or at least of 8.",
    )


def _image(look: Look, preset: str, reasons: dict[str, str]) -> tuple[int, int]:
    """Return the sides of images and patches."""
    most = LARGEST_IMAGE[preset]
    if look.short_side is None:
        size, why = 32, "they are drawn at any size; 32 trains in minutes"
    else:
        fitting = [side for side in IMAGE_SIZES if side <= min(look.short_side, most)]
        size = fitting[-1] if fitting else IMAGE_SIZES[0]
        why = f"the shorter side of half of your images has {look.short_side} pixels or more"
        if size == most < look.short_side:
            why += f"; {most} keeps members of this size fast"
    patch = 16 if size > 128 else size // 8
    reasons["image_size"] = why
    reasons["patch"] = f"{(size // patch) ** 2} patches an image"
    return size, patch


def _context(look: Look, reasons: dict[str, str]) -> int:
    """Return tokens a caption, by the rule of thumb that a word takes one and a half."""
    tokens = int(1.5 * look.caption_words) + 2
    reasons["context"] = (
        f"19 of 20 captions have {look.caption_words} words or fewer, a word takes about 1.5 "
        "tokens, begin and end take 2; longer ones are cut"
    )
    return min(MAX_CONTEXT, max(8, -(-tokens // 4) * 4))


def _batch(num_samples: int, least: int, iterations: int) -> int:
    """Return a power of two that leaves so many iterations an epoch, where there is enough."""
    size = 1 << max(2, min(least, num_samples // 4)).bit_length() - 1
    while 2 * size * iterations <= num_samples:
        size *= 2
    if num_samples < FEWEST:
        raise ConfigError(
            f"There are {num_samples:,} samples to train on, too few to learn from.",
            where="--data",
            do="Bring some hundred at least.",
        )
    return size


def _epochs(
    epochs: float | None, iterations: int, count: int, reasons: dict[str, str]
) -> tuple[float, ...]:
    """Return the epochs of each member."""
    if epochs is not None and not epochs > 0:
        raise ConfigError(f"--epochs {epochs:g} is not above 0.")
    reasons["epochs"] = "as you said"
    if epochs is None:
        low, high = EPOCHS
        epochs = min(high, max(low, round(ENOUGH / max(1, iterations))))
        reasons["epochs"] = f"about {round(epochs * iterations):,} iterations"
    shares = [SHARES[min(index, len(SHARES) - 1)] for index in range(count)]
    return tuple(float(f"{epochs * share:.3g}") for share in shares)
