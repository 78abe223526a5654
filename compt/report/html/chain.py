"""Draw a chain as boxes with arrows, as what a template needs of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.report.format import duration, metric_text, quantity

if TYPE_CHECKING:
    from compt.report.html.stages import Stage


@dataclass(frozen=True)
class Box:
    """One member of a drawn chain."""

    name: str
    colour: str
    arrow: tuple[str, ...]
    """What leads here from the member before, empty for the first and for members alone."""
    lines: tuple[tuple[str, str], ...]
    """What is said of it, as (label, text)."""
    share: float
    """Of the run's compute, from 0 to 1."""


@dataclass(frozen=True)
class Drawing:
    """A run drawn as a chain."""

    label: str
    path: str
    summary: str
    is_chain: bool
    boxes: tuple[Box, ...]


def draw(stages: Sequence[Stage], colours: Mapping[str, str]) -> Drawing:
    """Draw the stages of one run."""
    run = stages[0].run
    num_done = sum(stage.member is not None for stage in stages)
    summary = (
        f"{num_done} of {len(stages)} members trained, {quantity(run.flops, 'FLOP')}, "
        f"{duration(run.seconds)} of training"
    )
    boxes = tuple(_box(stage, colours[stage.name]) for stage in stages)
    return Drawing(run.label, run.path, summary, run.mode == "chain", boxes)


def _box(stage: Stage, colour: str) -> Box:
    share = stage.member.flops / stage.run.flops if stage.member and stage.run.flops else 0.0
    return Box(stage.name, colour, tuple(_arrow(stage)), tuple(_lines(stage)), share)


def _arrow(stage: Stage) -> list[str]:
    """Name what leads from the source to a stage."""
    if stage.source is None:
        return []
    grower = stage.growth.grower if stage.growth else None
    if stage.member is not None:
        grower = stage.member.grower
    if grower is None and stage.member is None:
        return ["not grown yet"]
    words = [f"grown: {grower}" if grower else "not grown"]
    if stage.growth is not None:
        words.append("exact" if stage.growth.function_preserving else "not exact")
    if stage.member is not None:
        words.append(f"teacher: {stage.member.record.transfer or 'none'}")
    return words


def _lines(stage: Stage) -> list[tuple[str, str]]:
    if stage.member is None:
        lines = [("state", stage.run.unfinished[stage.name])]
        if stage.planned_samples:
            text = f"{quantity(stage.samples)} of {quantity(stage.planned_samples)}"
            lines.append(("samples", text))
        return lines
    record = stage.member.record
    lines = [
        ("parameters", quantity(record.params)),
        ("samples", quantity(record.samples)),
        ("compute", quantity(stage.member.flops, "FLOP")),
        ("time", duration(record.seconds)),
    ]
    if record.main_metric is not None:
        lines.append((record.main_metric, metric_text(record.metrics.get(record.main_metric))))
    if record.stopped:
        lines.append(("stopped", record.stopped))
    return lines
