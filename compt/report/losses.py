"""Read the training losses of a stage from its logs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compt.interfaces.foreign import lines, parse_json

LOGS = "*/vis_data/scalars.json"
"""Of every start of a stage, in folders that are named by their time."""

MOST = 400
"""Points of a stage that are kept by default."""


@dataclass(frozen=True)
class LossPoint:
    """The losses that a log has of one iteration, as means of those since the one before."""

    iteration: int
    task: float
    """Without what the teacher adds."""
    transfer: float | None = None
    """What the teacher adds, as a mean like ``task``; None where none has been run."""


@dataclass(frozen=True)
class Losses:
    """The losses of a stage, thinned."""

    points: tuple[LossPoint, ...]
    num_logged: int
    """How many there were, with those left out here."""
    num_not_finite: int = 0
    """How many of them were no numbers, and are left out."""


def read_losses(stage: Path, most: int = MOST) -> Losses:
    """Read the losses of a stage, from all the times that it was started.

    Where a stage went on from a checkpoint, the iterations that it trained again count, not those
    that it lost. Lines that are no JSON, as a killed process leaves them, are skipped.

    Args:
        stage: its folder.
        most: points to keep; of neighbours, the smallest and the largest stay.
    """
    points: list[LossPoint] = []
    num_not_finite = 0
    for log in sorted(stage.glob(LOGS)):
        for point in _logged(log):
            while points and points[-1].iteration >= point.iteration:
                points.pop()
            if math.isfinite(point.task):
                points.append(point)
            else:
                num_not_finite += 1
    return Losses(thinned(points, most), len(points), num_not_finite)


def _logged(log: Path) -> Iterator[LossPoint]:
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in lines(file, log):
            if '"loss"' in line:  # the others are evaluations
                try:
                    yield _point(parse_json(line))
                except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                    continue


def _point(content: Mapping[str, Any]) -> LossPoint:
    loss = float(content["loss"])
    task = math.fsum(_terms(content, "task/")) if _terms(content, "task/") else loss
    # Not the terms of the transfer: they are means over the last iterations that had them, which
    # with teacher.every or behind transfer.until are others than those of the loss.
    has_teacher = bool(_terms(content, "transfer/")) and math.isfinite(loss)
    return LossPoint(int(content["iter"]), task, loss - task if has_teacher else None)


def _terms(content: Mapping[str, Any], beginning: str) -> list[float]:
    return [float(value) for name, value in content.items() if name.startswith(beginning)]


def thinned(points: Sequence[LossPoint], most: int) -> tuple[LossPoint, ...]:
    """Return at most about ``most`` points, with the extremes of all that are left out."""
    if len(points) <= most:
        return tuple(points)
    num_buckets = max(1, most // 2 - 1)
    kept_points = {points[0].iteration: points[0]}
    for index in range(num_buckets):
        start = index * len(points) // num_buckets
        stop = (index + 1) * len(points) // num_buckets
        neighbours = points[start:stop]
        for point in (min(neighbours, key=_task), max(neighbours, key=_task)):
            kept_points[point.iteration] = point
    kept_points[points[-1].iteration] = points[-1]
    return tuple(kept_points[iteration] for iteration in sorted(kept_points))


def _task(point: LossPoint) -> float:
    return point.task
