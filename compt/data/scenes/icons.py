"""Choose the icons that scenes are made of, and draw them in both sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from compt.data.icons.drawings import INSTALL, Drawings, drawings
from compt.data.icons.names import Icon, divide
from compt.data.scenes.layout import CELLS, COLOURS, NO_COLOUR, Icons, held_out_colour
from compt.errors import DataError

VENDORS = ("material", "octicons")
"""Those whose icons can be held out by concept; the logos of the others are all trained on."""
MAX_WORDS = 5
"""Of a name: the few longer ones look alike and would make captions long."""


def cell_size(image_size: int) -> int:
    """Return height and width of a cell, which a large icon fills."""
    return image_size // 2


def small_size(image_size: int) -> int:
    """Return height and width of a small icon."""
    return cell_size(image_size) * 7 // 12


@lru_cache(maxsize=2)
def open_icons(image_size: int, cache_dir: Path | None) -> Mapping[str, Icons]:
    """Return the icons of 'train' and those of concepts never seen, 'icon'.

    Of the former those are left out whose drawing means several concepts: one of them could be
    trained on in the held-out colour of another.

    Raises:
        DataError: the package of the icons is missing, or the cache cannot be written.
    """
    sizes = small_size(image_size), cell_size(image_size)
    drawn = tuple(drawings(size, cache_dir) for size in sizes)
    small, large = (_rows(images) for images in drawn)
    result = {}
    for split, name in (("train", "train"), ("concept", "icon")):
        rows = sorted(small[split] & large[split])
        icons = [Icon(drawn[0].paths[row]) for row in rows]
        is_plain = _one_concept(icons, [[images.digests[row] for row in rows] for images in drawn])
        rows = [row for row, plain in zip(rows, is_plain, strict=True) if plain]
        result[name] = _gathered(rows, drawn, has_held_out=name == "train")
        if len(np.unique(result[name].concepts)) < CELLS:
            raise DataError(
                f"The package mkdocs-material has icons of fewer than {CELLS} things for '{name}'.",
                do=f"Reinstall it: {INSTALL}",
            )
    return result


def _rows(drawn: Drawings) -> dict[str, set[int]]:
    """Return which icons of each split of ``icons`` there are at a size."""
    icons = [None if path in drawn.skipped else Icon(path) for path in drawn.paths]
    return {
        name: {row for row in split.rows if _is_wanted(Icon(drawn.paths[row]))}
        for name, split in divide(icons, drawn.digests).items()
    }


def _is_wanted(icon: Icon) -> bool:
    return icon.vendor in VENDORS and len(icon.captions[0].split()) <= MAX_WORDS


def _one_concept(icons: Sequence[Icon], digests: Sequence[Sequence[str]]) -> Iterator[bool]:
    """Yield for each icon whether no drawing of it is also that of another concept."""
    meanings: dict[str, set[str]] = {}
    for of_size in digests:
        for icon, digest in zip(icons, of_size, strict=True):
            meanings.setdefault(digest, set()).add(icon.concept)
    for row in range(len(icons)):
        yield all(len(meanings[of_size[row]]) == 1 for of_size in digests)


def _gathered(rows: Sequence[int], drawn: Sequence[Drawings], *, has_held_out: bool) -> Icons:
    """Gather names, colours and drawings of some rows."""
    icons = [Icon(drawn[0].paths[row]) for row in rows]
    number = {concept: i for i, concept in enumerate(sorted({icon.concept for icon in icons}))}
    colours = [held_out_colour(icon.concept) if has_held_out else NO_COLOUR for icon in icons]
    shapes = [[int(images.digests[row], 16) for row in rows] for images in drawn]
    return Icons(
        names=tuple(icon.captions[0] for icon in icons),
        concepts=np.array([number[icon.concept] for icon in icons]),
        held_out_colours=np.array(colours, np.uint8),
        shapes=np.array(shapes, np.uint64),
        ink=tuple(255 - images.open()[list(rows)] for images in drawn),  # type: ignore[arg-type]
    )


def inks() -> np.ndarray:
    """Return what each colour is at each strength on white, uint8 [colours, 256, 3]."""
    strength = np.arange(256)[None, :, None]
    away = 255 - np.array(list(COLOURS.values()))[:, None, :]
    coloured: np.ndarray = 255 - (strength * away + 127) // 255
    return coloured.astype(np.uint8)
