"""What the file name of an icon says: caption, concept, head word, and the split they put it in."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

VENDORS = ("fontawesome", "material", "octicons", "simple")
HELD_OUT_VENDOR = "fontawesome"
LOGOS = "simple"
"""The vendor of brand logos, which are trained on."""
HELD_OUT_SHARE = 0.12
"""Of the concepts that are no brand logo."""
MIN_TRAIN, MIN_HELD_OUT = 12, 2
"""Icons that a head word needs on either side to become a class."""
STYLES = frozenset(
    {
        "outline",
        "outlined",
        "off",
        "variant",
        "box",
        "circle",
        "fill",
        "inset",
        "multiple",
        "alt",
        "square",
    }
)
"""Words that change how a thing is drawn, not what it is."""
LEVEL = re.compile(r"\d{2,}")


@dataclass(frozen=True)
class Icon:
    """One icon, by the path of its file below the folder of icons, such as
    ``material/bell-outline.svg``.
    """

    path: str

    @property
    def vendor(self) -> str:
        """The first folder."""
        return self.path.partition("/")[0]

    @cached_property
    def name(self) -> str:
        """The file name; octicons' sizes (``-16``, ``-24``) are no part of it."""
        stem = self.path.rpartition("/")[2].removesuffix(".svg")
        return re.sub(r"-\d+$", "", stem) if self.vendor == "octicons" else stem

    @property
    def captions(self) -> tuple[str, ...]:
        """The words of the name; a brand's also with 'logo' behind."""
        caption = self.name.replace("-", " ")
        return (caption, f"{caption} logo") if self.vendor == LOGOS else (caption,)

    @property
    def head(self) -> str:
        """The first word of the name."""
        return self.name.split("-")[0]

    @cached_property
    def concept(self) -> str:
        """What is drawn, with style words, levels (numbers of two digits or more) and word borders
        left out.

        ``battery-10`` and ``battery-90-outline`` are one concept, as are ``language-python`` and
        ``python``, ``microsoft-azure`` and ``microsoftazure``.
        """
        words = self.name.split("-")
        if words[0] == "language" and len(words) > 1:
            words = words[1:]
        return words[0] + "".join(
            word for word in words[1:] if word not in STYLES and not LEVEL.fullmatch(word)
        )


def held_out(concept: str) -> bool:
    """Whether a concept's hash falls into the share that is never trained on."""
    digest = hashlib.sha256(concept.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


@dataclass(frozen=True)
class Split:
    """Rows of the drawn icons, the class of each (-1: none), and the names of the classes."""

    rows: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def divide(icons: Sequence[Icon | None], pictures: Sequence[str]) -> dict[str, Split]:
    """Divide icons into 'train', 'concept' and 'vendor'.

    A picture that also occurs in 'train' is in no held-out split, nor is one that a held-out split
    would give two classes.

    Args:
        icons: one a row; None where it could not be drawn.
        pictures: one a row, equal where the pixels are.
    """
    brands = {icon.concept for icon in icons if icon and icon.vendor == LOGOS}
    sides: dict[str, list[int]] = {"train": [], "concept": [], "vendor": []}
    for row, icon in enumerate(icons):
        if icon is None:
            continue
        if icon.vendor == HELD_OUT_VENDOR:
            sides["vendor"].append(row)
        else:
            unseen = icon.concept not in brands and held_out(icon.concept)
            sides["concept" if unseen else "train"].append(row)
    seen = {pictures[row] for row in sides["train"]}
    named = {row: icon for row, icon in enumerate(icons) if icon}
    trained = {named[row].name for row in sides["train"] if named[row].vendor == "material"}
    concept = [row for row in sides["concept"] if pictures[row] not in seen]
    vendor = [
        row for row in sides["vendor"] if pictures[row] not in seen and named[row].name in trained
    ]
    heads = {row: icon.head for row, icon in named.items()}
    names = {row: icon.name for row, icon in named.items()}
    concept, vendor = _unambiguous(concept, heads, pictures), _unambiguous(vendor, names, pictures)
    classes = _head_classes([heads[row] for row in sides["train"]], [heads[row] for row in concept])
    return {
        "train": _label(sides["train"], heads, classes),
        "concept": _label(concept, heads, classes),
        "vendor": _label(vendor, names, sorted({names[row] for row in vendor})),
    }


def _unambiguous(rows: Sequence[int], words: dict[int, str], pictures: Sequence[str]) -> list[int]:
    """Leave out every picture that occurs under several words."""
    meanings: dict[str, set[str]] = {}
    for row in rows:
        meanings.setdefault(pictures[row], set()).add(words[row])
    return [row for row in rows if len(meanings[pictures[row]]) == 1]


def _head_classes(train: Sequence[str], unseen: Sequence[str]) -> list[str]:
    trained, held = Counter(train), Counter(unseen)
    return sorted(
        word for word in held if trained[word] >= MIN_TRAIN and held[word] >= MIN_HELD_OUT
    )


def _label(rows: Sequence[int], words: dict[int, str], classes: Sequence[str]) -> Split:
    number = {name: i for i, name in enumerate(classes)}
    labels = tuple(number.get(words[row], -1) for row in rows)
    return Split(tuple(rows), labels, tuple(name.replace("-", " ") for name in classes))
