"""Say of every tensor of a grown model where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compt.report.format import growth_text

if TYPE_CHECKING:
    from compt.report.growth import GrowthReport
    from compt.report.html.stages import Stage

WORDS = {
    "copied": "copied",
    "expanded": "expanded",
    "initialised": "new",
    "shared": "shared",
}
"""What a status is called."""
MEANINGS = {
    "copied": "as it was in the source",
    "expanded": "made of the source's",
    "new": "not of the source",
    "shared": "one with another tensor",
}
MOST_CHARACTERS = 2_000_000
"""Of all lists of tensors of a page, which bound the size of the file."""
CHARACTERS_A_ROW = 40
"""Of a row, beside the tensor's name."""
MOST_DROPPED = 20


@dataclass(frozen=True)
class Coverage:
    """How one member was grown."""

    run: str
    name: str
    source: str
    grower: str
    verdict: str
    """Whether it is exact, or how far from it."""
    counts: tuple[tuple[str, int, float], ...]
    """(word, number of tensors, their share), without those that none has."""
    rows: tuple[tuple[str, str], ...]
    """(name, word) of every tensor."""
    num_left_out: int
    """Tensors without a row."""
    notes: tuple[str, ...]


def coverages(stages: Sequence[Stage]) -> tuple[Coverage, ...]:
    """Return how each member was grown that was."""
    grown = [(stage, stage.growth) for stage in stages if stage.growth is not None]
    most = MOST_CHARACTERS // max(len(grown), 1)
    return tuple(_coverage(stage, growth, most) for stage, growth in grown)


def _coverage(stage: Stage, growth: GrowthReport, most: int) -> Coverage:
    rows = tuple(_rows(growth.params, most))
    return Coverage(
        run=stage.run.label,
        name=stage.name,
        source=stage.source.name if stage.source else "a model outside the chain",
        grower=growth.grower or (stage.member.record.grower if stage.member else "") or "",
        verdict=growth_text(replace(growth, dropped=())),  # notes have them
        counts=tuple(_counts(growth)),
        rows=rows,
        num_left_out=len(growth.params) - len(rows),
        notes=tuple(_notes(growth)),
    )


def _rows(params: Mapping[str, str], most: int) -> Iterator[tuple[str, str]]:
    """Yield tensors until they have taken ``most`` characters."""
    for name, status in params.items():
        most -= len(name) + CHARACTERS_A_ROW
        if most < 0:
            return
        yield name, WORDS.get(status, status)


def _counts(growth: GrowthReport) -> Iterator[tuple[str, int, float]]:
    total = sum(growth.counts.values()) or 1
    for status, number in growth.counts.items():
        if number:
            yield WORDS.get(status, status), number, number / total


def _notes(growth: GrowthReport) -> Iterator[str]:
    for name, first, held_out in growth.probed:
        yield f"Probed: {name}, held-out loss {held_out:.4g} after {first:.4g} as grown."
    if growth.objective is not None and not growth.probed:
        learned = growth.objective
        yield (
            f"Learned in {learned.calls:,} steps: loss {learned.first_loss:.4g} -> "
            f"{learned.last_loss:.4g}."
        )
    if growth.dropped:
        yield f"Not used of the source: {_listed(growth.dropped)}."
    if growth.reset:
        yield f"Set anew, as they must not be inherited: {_listed(growth.reset)}."


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - MOST_DROPPED:,} more" if names[MOST_DROPPED:] else ""
    return ", ".join(names[:MOST_DROPPED]) + rest
