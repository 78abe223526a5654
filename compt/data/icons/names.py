"""Reads an icon's caption, concept and head word off its file name, and the split they lead to."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

SPLITS = ("train", "concept", "vendor")
VENDORS = ("fontawesome", "material", "octicons", "simple")
HELD_OUT_VENDOR = "fontawesome"
NAMING_VENDOR = "material"
"""The vendor whose names the held-out vendor's drawings share."""
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
    """One icon, by the path of its file."""

    path: str
    """Below the folder of icons, such as ``material/bell-outline.svg``."""

    @property
    def vendor(self) -> str:
        """The first folder."""
        return self.path.partition("/")[0]

    @cached_property
    def name(self) -> str:
        """The file name, without octicons' sizes (``-16``, ``-24``)."""
        stem = self.path.rpartition("/")[2].removesuffix(".svg")
        return re.sub(r"-\d+$", "", stem) if self.vendor == "octicons" else stem

    @property
    def captions(self) -> tuple[str, ...]:
        """The words of the name, a brand's also with 'logo' behind."""
        caption = self.name.replace("-", " ")
        return (caption, f"{caption} logo") if self.vendor == LOGOS else (caption,)

    @property
    def head(self) -> str:
        """The first word of the name."""
        return self.name.split("-")[0]

    @cached_property
    def concept(self) -> str:
        """What is drawn, without style words, levels and word borders.

        Levels are numbers of two digits or more. ``battery-10`` and ``battery-90-outline`` are one
        concept, as are ``language-python`` and ``python``, ``microsoft-azure`` and
        ``microsoftazure``.
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
    """Rows of the drawn icons, the class of each, and the names of the classes."""

    rows: tuple[int, ...]
    labels: tuple[int, ...]
    """Indices into ``classes``, -1 for none."""
    classes: tuple[str, ...]


def divide(icons: Sequence[Icon | None], digests: Sequence[str]) -> dict[str, Split]:
    """Divide icons into 'train', 'concept' and 'vendor'.

    An image that also occurs in 'train' is in no held-out split, nor is one that a held-out split
    would give two classes.

    Args:
        icons: one a row; None where it could not be drawn.
        digests: one a row, equal where the pixels are.
    """
    drawn = {row: icon for row, icon in enumerate(icons) if icon}
    heads = {row: icon.head for row, icon in drawn.items()}
    names = {row: icon.name for row, icon in drawn.items()}
    sides = _sides(drawn)
    trained = sides["train"]
    known_names = {names[row] for row in trained if drawn[row].vendor == NAMING_VENDOR}
    redrawn = [row for row in sides["vendor"] if names[row] in known_names]
    unseen = _unambiguous(_unlike(sides["concept"], trained, digests), heads, digests)
    redrawn = _unambiguous(_unlike(redrawn, trained, digests), names, digests)
    head_classes = _head_classes([heads[row] for row in trained], [heads[row] for row in unseen])
    name_classes = sorted({names[row] for row in redrawn})
    return {
        "train": _label(trained, heads, head_classes),
        "concept": _label(unseen, heads, head_classes),
        "vendor": _label(redrawn, names, name_classes),
    }


def _unlike(rows: Sequence[int], others: Sequence[int], digests: Sequence[str]) -> list[int]:
    """Leave out every row whose image is also that of one of the others."""
    seen = {digests[row] for row in others}
    return [row for row in rows if digests[row] not in seen]


def _sides(drawn: Mapping[int, Icon]) -> dict[str, list[int]]:
    """Put each row on the side that its icon's vendor and concept decide."""
    brands = {icon.concept for icon in drawn.values() if icon.vendor == LOGOS}
    sides: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row, icon in drawn.items():
        if icon.vendor == HELD_OUT_VENDOR:
            sides["vendor"].append(row)
        else:
            unseen = icon.concept not in brands and held_out(icon.concept)
            sides["concept" if unseen else "train"].append(row)
    return sides


def _unambiguous(
    rows: Sequence[int], words: Mapping[int, str], digests: Sequence[str]
) -> list[int]:
    """Leave out every image that occurs under several words."""
    meanings: dict[str, set[str]] = {}
    for row in rows:
        meanings.setdefault(digests[row], set()).add(words[row])
    return [row for row in rows if len(meanings[digests[row]]) == 1]


def _head_classes(train: Sequence[str], unseen: Sequence[str]) -> list[str]:
    in_train, in_unseen = Counter(train), Counter(unseen)
    return sorted(
        word
        for word, count in in_unseen.items()
        if in_train[word] >= MIN_TRAIN and count >= MIN_HELD_OUT
    )


def _label(rows: Sequence[int], words: Mapping[int, str], classes: Sequence[str]) -> Split:
    number = {name: i for i, name in enumerate(classes)}
    labels = tuple(number.get(words[row], -1) for row in rows)
    return Split(tuple(rows), labels, tuple(name.replace("-", " ") for name in classes))
