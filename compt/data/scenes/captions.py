"""Say what stands in a scene, and say it wrongly by a swapped word or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from compt.data.scenes.chance import Dice

NUM_CAPTIONS = 4
"""Captions of a scene."""
LARGE, SMALL = ("large", "big"), ("small", "little")
PLACES = ("at the {} {}", "in the {} {}")
VERTICAL, HORIZONTAL = (("top", "bottom"), ("upper", "lower")), ("left", "right")
"""Words for row and column; of the rows those that go with each of ``PLACES``."""
BESIDE = (("left of", "right of"), ("to the left of", "to the right of"))
ABOVE = (("above", "below"), ("over", "under"))
"""Relations of the first icon to the second, where its column or row is smaller, or larger."""
_PAIRS = (
    *zip(LARGE, SMALL, strict=True),
    *VERTICAL,
    HORIZONTAL,
    *BESIDE,
    *ABOVE,
)
OPPOSITE = {word: other for a, b in _PAIRS for word, other in ((a, b), (b, a))}


@dataclass(frozen=True)
class Object:
    """An icon in a scene, with the colour that its concept never has in training, '' for none."""

    name: str
    colour: str
    is_large: bool
    row: int
    column: int
    held_out_colour: str = ""


@dataclass(frozen=True)
class Mention:
    """What is said of an object, where '' stands for nothing."""

    object: Object
    colour: str = ""
    size: str = ""
    place: str = ""
    vertical: str = ""
    horizontal: str = ""

    def __str__(self) -> str:
        words = (self.size, self.colour, self.object.name)
        place = self.place.format(self.vertical, self.horizontal)
        return " ".join(filter(None, (*words, place)))


@dataclass(frozen=True)
class Sentence:
    """Objects that are mentioned, and how the first of two stands to the second."""

    mentions: tuple[Mention, ...]
    relation: str = ""

    def __str__(self) -> str:
        return f" {self.relation or 'and'} ".join(map(str, self.mentions))


def describe(objects: Sequence[Object], dice: Dice) -> list[Sentence]:
    """Describe a scene in several ways.

    The first sentence names the colour of all it mentions and a size, place or relation, so that
    words of it can be swapped.
    """
    first = _related(objects, dice, True) if dice.one_in(3) else _placed(objects, dice, True)
    forms = (_placed, _related, _listed)
    others = (dice.pick(forms)(objects, dice, False) for _ in range(NUM_CAPTIONS - 1))
    return [first, *others]


def _colour(of: Object, dice: Dice, is_certain: bool) -> str:
    return of.colour if is_certain or not dice.one_in(4) else ""


def _size(of: Object, dice: Dice) -> str:
    return dice.pick(LARGE if of.is_large else SMALL)


def _at(mention: Mention, dice: Dice) -> Mention:
    """Say where an object is too."""
    style = dice.below(len(PLACES))
    vertical = VERTICAL[style][mention.object.row]
    horizontal = HORIZONTAL[mention.object.column]
    return replace(mention, place=PLACES[style], vertical=vertical, horizontal=horizontal)


def _placed(objects: Sequence[Object], dice: Dice, names_colours: bool) -> Sentence:
    """Mention one to three objects by colour, size and place, the first not by colour alone."""
    mentions = []
    count = 1 + dice.below(min(len(objects), 3))
    for number, of in enumerate(dice.sample(objects, count)):
        mention = Mention(of, _colour(of, dice, names_colours))
        has_size, has_place = dice.one_in(2), dice.one_in(2)
        if number == 0 and not has_size and not has_place:
            has_size = dice.one_in(2)
            has_place = not has_size
        if has_size:
            mention = replace(mention, size=_size(of, dice))
        mentions.append(_at(mention, dice) if has_place else mention)
    return Sentence(tuple(mentions))


def _related(objects: Sequence[Object], dice: Dice, names_colours: bool) -> Sentence:
    """Say how one object stands to another, where there are two."""
    if len(objects) < 2:
        return _placed(objects, dice, names_colours)
    first, second = dice.sample(objects, 2)
    is_beside = first.row == second.row or (first.column != second.column and dice.one_in(2))
    words = dice.pick(BESIDE if is_beside else ABOVE)
    is_later = first.column > second.column if is_beside else first.row > second.row
    mentions = []
    for of in (first, second):
        colour = _colour(of, dice, names_colours)
        mentions.append(Mention(of, colour, _size(of, dice) if dice.one_in(4) else ""))
    return Sentence(tuple(mentions), words[is_later])


def _listed(objects: Sequence[Object], dice: Dice, names_colours: bool) -> Sentence:
    """Mention all objects, in any order, without size and place."""
    order = dice.sample(objects, len(objects))
    return Sentence(tuple(Mention(of, _colour(of, dice, names_colours)) for of in order))


def swapped(sentence: Sentence, dice: Dice) -> Sentence:
    """Swap words so that a first sentence of :func:`describe` is wrong.

    Either two objects exchange their colours, or a word for size, place or relation becomes its
    opposite. No object gets the colour that its concept never has in training, which would give
    the wrong sentence away.
    """
    kinds = (_colours_swapped, _opposites, _relation_swapped)
    choices = [list(kind(sentence)) for kind in kinds]
    return dice.pick(dice.pick([choice for choice in choices if choice]))


def _colours_swapped(sentence: Sentence) -> Iterator[Sentence]:
    for (i, a), (j, b) in combinations(enumerate(sentence.mentions), 2):
        if _may_exchange(a, b):
            mentions = list(sentence.mentions)
            mentions[i], mentions[j] = replace(a, colour=b.colour), replace(b, colour=a.colour)
            yield replace(sentence, mentions=tuple(mentions))


def _may_exchange(a: Mention, b: Mention) -> bool:
    """Whether two mentions with each other's colour are wrong, and of pairs that are trained on."""
    are_different = bool(a.colour and b.colour and a.colour != b.colour)
    is_held_out = a.object.held_out_colour == b.colour or b.object.held_out_colour == a.colour
    return are_different and not is_held_out


def _opposites(sentence: Sentence) -> Iterator[Sentence]:
    mentions = sentence.mentions
    for i, mention in enumerate(mentions):
        for wrong in _wrong(mention):
            yield replace(sentence, mentions=(*mentions[:i], wrong, *mentions[i + 1 :]))


def _wrong(mention: Mention) -> Iterator[Mention]:
    if mention.size:
        yield replace(mention, size=OPPOSITE[mention.size])
    if mention.place:
        yield replace(mention, vertical=OPPOSITE[mention.vertical])
        yield replace(mention, horizontal=OPPOSITE[mention.horizontal])


def _relation_swapped(sentence: Sentence) -> Iterator[Sentence]:
    if sentence.relation:
        yield replace(sentence, relation=OPPOSITE[sentence.relation])
