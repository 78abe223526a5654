"""Decide what stands where in every scene, so that no held-out scene can be one of training.

An icon's concept has one colour that training never shows it in. Whether a scene of other colours
is of 'train' or of 'seen' is read off the scene itself, so that the two share none, however many
scenes there are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from compt.data.scenes.chance import key_for, mixed, table

FORMAT = 1
"""Rises when the same options come to mean other scenes or captions."""
SPLITS = ("train", "seen", "combination", "icon")
COLOURS = {
    "red": (220, 30, 30),
    "orange": (250, 130, 20),
    "yellow": (240, 200, 20),
    "green": (30, 150, 50),
    "cyan": (30, 190, 210),
    "blue": (30, 70, 220),
    "purple": (130, 40, 170),
    "pink": (250, 130, 190),
    "brown": (120, 70, 30),
    "black": (20, 20, 20),
}
NO_COLOUR = len(COLOURS)
"""Stands for the held-out colour of an icon that has none."""
CELLS = 4
"""Places for an icon: top left, top right, bottom left, bottom right."""
EMPTY = -1
COUNTS = (1, 2, 2, 3, 3, 4)
"""How many icons a scene has, each number as likely as the others."""
SEEN_SHARE = 8
"""One in so many of all scenes that could be trained on is of 'seen'."""
OBJECT = np.dtype([("icon", "<i4"), ("colour", "u1"), ("large", "?"), ("y", "u1"), ("x", "u1")])
"""What stands in a cell; ``y`` and ``x`` are 256ths of the room that is left beside it."""
ORDERS = np.array(list(itertools.permutations(range(CELLS))))


@dataclass(frozen=True)
class Icons:
    """The icons that scenes are made of, one a row.

    ``concepts`` and ``held_out_colours`` are numbers [K]. ``shapes`` are hashes of the drawings,
    uint64 [2, K], small and large. ``ink`` is uint8 [K, size, size], small and large, 255 where an
    icon covers the ground.
    """

    names: tuple[str, ...]
    concepts: np.ndarray
    held_out_colours: np.ndarray
    shapes: np.ndarray
    ink: tuple[np.ndarray, np.ndarray]


def held_out_colour(concept: str) -> int:
    """Return the number of the colour in which a concept is never trained on."""
    return key_for("held-out colour", concept) % len(COLOURS)


def lay_out(split: str, count: int, seed: int, icons: Icons) -> np.ndarray:
    """Lay out the scenes of a split, of which fewer are the first of more.

    Returns:
        OBJECT [count, CELLS], with ``icon`` EMPTY where nothing stands.
    """
    scenes = np.zeros((count, CELLS), OBJECT)
    missing, attempt = np.arange(count), 0
    while len(missing):
        key = key_for("layout", FORMAT, seed, split, attempt)
        scenes[missing] = _draw(split, table(key, missing, 2 + 5 * CELLS), icons)
        missing, attempt = missing[~_belongs(split, scenes[missing], icons)], attempt + 1
    return scenes


def _draw(split: str, numbers: np.ndarray, icons: Icons) -> np.ndarray:
    """Draw as many scenes as there are rows of numbers."""
    scenes = np.zeros((len(numbers), CELLS), OBJECT)
    counts = np.array(COUNTS)[numbers[:, 0] % len(COUNTS)]
    is_filled = ORDERS[numbers[:, 1] % len(ORDERS)] < counts[:, None]
    icon, colour, large, y, x = np.moveaxis(numbers[:, 2:].reshape(-1, CELLS, 5), 2, 0)
    icon = (icon % len(icons.names)).astype(np.int64)
    held_out = icons.held_out_colours[icon]
    if split == "combination":
        colour = held_out
    elif split == "icon":
        colour = colour % len(COLOURS)
    else:  # any but the one held out
        others = len(COLOURS) - 1
        colour = (held_out + 1 + (colour % others).astype(np.int64)) % len(COLOURS)
    values = {"icon": icon, "colour": colour, "large": large % 2, "y": y % 256, "x": x % 256}
    for field, value in values.items():
        scenes[field] = np.where(is_filled, value, EMPTY if field == "icon" else 0)
    return scenes


def _belongs(split: str, scenes: np.ndarray, icons: Icons) -> np.ndarray:
    """Return which scenes show no concept twice and are of the split, bool [N]."""
    nothing = -1 - np.arange(CELLS)
    concepts = np.where(scenes["icon"] == EMPTY, nothing, icons.concepts[scenes["icon"]])
    result = np.all(np.diff(np.sort(concepts, 1), axis=1) > 0, axis=1)
    if split in ("train", "seen"):
        result = result & (_is_held_out(scenes, icons) == (split == "seen"))
    return np.asarray(result)


def _is_held_out(scenes: np.ndarray, icons: Icons) -> np.ndarray:
    """Return which scenes are of 'seen', by what each shows and not by how it was drawn.

    Where exactly an icon stands in its cell does not count, nor which of several icons of one
    drawing it is.
    """
    shape = icons.shapes[scenes["large"].astype(np.int64), scenes["icon"]]
    value = mixed(shape + (2 * scenes["colour"] + scenes["large"]).astype(np.uint64))
    value = np.where(scenes["icon"] == EMPTY, np.uint64(0), value)
    result = np.zeros(len(scenes), np.uint64)
    for cell in range(CELLS):
        result = mixed(result + value[:, cell] + np.uint64(1))
    return np.asarray(result % np.uint64(SEEN_SHARE) == 0)
