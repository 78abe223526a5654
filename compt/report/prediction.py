"""Predict what a chain should cost from members that were trained alone, to their whole length.

From shorter runs :mod:`compt.planning.auto` does it, by a law of their losses.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from compt.errors import ConfigError
from compt.planning.fading import FROM_END, Fading
from compt.report.record import StageRecord
from compt.report.results import RunResult, read_run, read_state


@dataclass(frozen=True)
class MemberPrediction:
    """What one member should need once it is grown, as a share of its budget alone.

    The first member needs all of it.
    """

    name: str
    fraction: float
    deviation: float
    """Standard deviation: over the pilot runs, and of the rule."""
    flops: float
    """Alone."""


@dataclass(frozen=True)
class Prediction:
    """A chain's members, and its compute against every member alone."""

    members: tuple[MemberPrediction, ...]
    flops: float
    deviation: float
    """Of ``flops``, over the pilot runs and of the rule, which errs alike for all members."""
    alone_flops: float

    @property
    def acceleration(self) -> float:
        """How many times less compute the chain should take."""
        return self.alone_flops / self.flops

    @property
    def acceleration_deviation(self) -> float:
        """Standard deviation of ``acceleration``, to first order."""
        return self.acceleration * self.deviation / self.flops


def read_pilots(folders: Sequence[Path]) -> list[RunResult]:
    """Read work folders of ``compt train --individual``.

    Raises:
        ConfigError: one is a chain's, or its members are not those of the others, or not finished.
        WorkDirError: one is no work folder, or damaged.
    """
    runs = [read_run(folder, read_state(folder), folder.name) for folder in folders]
    names = [member.name for member in runs[0].members]
    for folder, run in zip(folders, runs, strict=True):
        if run.mode != "individual":
            raise ConfigError(
                "A pilot run is one of members alone, and this is a chain's.",
                where=str(folder),
                do="Give work folders of compt train CONFIG --individual.",
            )
        own_names = [member.name for member in run.members]
        if run.unfinished or own_names != names:
            raise ConfigError(
                f"Pilot runs need the same members, all finished: {names} and {own_names}, "
                f"unfinished {list(run.unfinished)}.",
                where=str(folder),
                do="Finish it with --resume, or leave it out.",
            )
    return runs


def predict(runs: Sequence[RunResult]) -> Prediction:
    """Predict a chain of the members of runs alone, one run a seed.

    What of a member's own curve alone comes before its source's metric is skipped; how long the
    member then takes, :mod:`compt.planning.fading` says.
    """
    return predict_members([[member.record for member in run.members] for run in runs])


def predict_members(runs: Sequence[Sequence[StageRecord]], metric: str | None = None) -> Prediction:
    """Predict a chain of members alone, by seed and from small to large.

    ``metric`` is 'split/name', None for the main one.
    """
    columns = list(zip(*runs, strict=True))
    costs = [statistics.mean(record.flops.total for record in column) for column in columns]
    skipped = [
        [1 - fraction_left(*pair, metric) for pair in zip(*hop, strict=True)]
        for hop in pairwise(columns)
    ]
    needs = _needs(skipped, len(runs))
    low, high = (_needs(skipped, len(runs), FROM_END.moved(errors)) for errors in (-1, 1))
    rule = [
        (statistics.mean(most) - statistics.mean(least)) / 2
        for least, most in zip(low, high, strict=True)
    ]
    members = tuple(
        MemberPrediction(
            name=column[0].name,
            fraction=statistics.mean(shares),
            deviation=math.hypot(_deviation(shares), error),
            flops=cost,
        )
        for column, shares, error, cost in zip(columns, needs, rule, costs, strict=True)
    )
    totals = [_weighted(shares, costs) for shares in zip(*needs, strict=True)]
    return Prediction(
        members=members,
        flops=statistics.mean(totals),
        deviation=math.hypot(_deviation(totals), _weighted(rule, costs)),
        alone_flops=sum(costs),
    )


def _needs(
    skipped: Sequence[Sequence[float]], num_runs: int, fading: Fading = FROM_END
) -> list[list[float]]:
    """Return the share of its budget alone that each member should need, by member and run."""
    grown = [[fading.share_for(1.0, share) for share in hop] for hop in skipped]
    return [[1.0] * num_runs, *grown]


def fraction_left(source: StageRecord, target: StageRecord, metric: str | None = None) -> float:
    """Return the share of a member's curve alone that lies beyond its source's final metric.

    Linear between the two evaluations around the crossing; a curve that begins beyond it has
    crossed at its first. 0 where it never gets there, 1 where there is nothing to compare.

    Args:
        source: the member that it would be grown from.
        target: the member, trained alone.
        metric: 'split/name', None for the source's main one.
    """
    name = metric or source.main_metric or ""
    goal = source.metrics.get(name)
    if goal is None or goal.value is None or not target.curve:
        return 1.0
    total = target.curve[-1].iteration
    previous = (0, -math.inf)
    for point in target.curve:
        value = point.value(name)
        quality = -math.inf if value is None else goal.sign * value
        if quality >= goal.sign * goal.value:
            crossing = _crossing(previous, (point.iteration, quality), goal.sign * goal.value)
            return 1 - crossing / total
        previous = (point.iteration, quality)
    return 0.0 if math.isfinite(previous[1]) else 1.0


def _crossing(low: tuple[int, float], high: tuple[int, float], goal: float) -> float:
    """Return the iteration at which a line between two evaluations is at the goal."""
    (start, below), (end, above) = low, high
    if not (math.isfinite(below) and below < above):
        return end
    return start + (goal - below) / (above - below) * (end - start)


def _weighted(shares: Sequence[float], costs: Sequence[float]) -> float:
    return sum(share * cost for share, cost in zip(shares, costs, strict=True))


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
