"""What a chain should cost, from members that were trained alone: the planner's estimate before
anything is grown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from compt.errors import ConfigError
from compt.report.results import MemberResult, RunResult, read_run, read_state

RESTART = 0.17
"""What a grown member needs beside what is left to learn, as a share of its budget alone: its
source's rate had come down, and its own goes up and comes down once more. From the hops of
docs/study.md."""

RESTART_DEVIATION = 0.1
"""Standard deviation of the same over those hops."""


@dataclass(frozen=True)
class MemberPrediction:
    """What one member should need once it is grown, as a share of its budget alone; the first needs
    all of it.
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
    runs = [read_run(folder, read_state(folder), folder.name, []) for folder in folders]
    names = [member.name for member in runs[0].members]
    for folder, run in zip(folders, runs, strict=True):
        if run.mode != "individual":
            raise ConfigError(
                "A pilot run is one of members alone, and this is a chain's.",
                where=str(folder),
                do="Give work folders of compt train CONFIG --individual.",
            )
        if run.unfinished or [member.name for member in run.members] != names:
            raise ConfigError(
                f"Pilot runs need the same members, all finished: {names} and {[m.name for m in run.members]}, "
                f"unfinished {list(run.unfinished)}.",
                where=str(folder),
                do="Finish it with --resume, or leave it out.",
            )
    return runs


def predict(runs: Sequence[RunResult]) -> Prediction:
    """Predict a chain of the members of runs alone, one run a seed.

    A grown member begins where its source ended, so it should need what is left of its own curve
    alone once that has crossed the source's figure, and ``RESTART``.
    """
    return predict_members([run.members for run in runs])


def predict_members(
    runs: Sequence[Sequence[MemberResult]], metric: str | None = None
) -> Prediction:
    """The same for members alone, small to large, by seed; ``metric`` is 'split/name', None for the
    main one.
    """
    columns = list(zip(*runs, strict=True))
    flops = [statistics.mean(member.flops for member in column) for column in columns]
    needs = [[1.0] * len(runs)] + [
        [
            min(1.0, RESTART + fraction_left(*pair, metric))
            for pair in zip(before, after, strict=True)
        ]
        for before, after in pairwise(columns)
    ]
    rule = [0.0] + [RESTART_DEVIATION] * (len(columns) - 1)
    totals = [
        sum(share * cost for share, cost in zip(row, flops, strict=True))
        for row in zip(*needs, strict=True)
    ]
    members = tuple(
        MemberPrediction(
            column[0].name, statistics.mean(shares), math.hypot(_deviation(shares), error), cost
        )
        for column, shares, error, cost in zip(columns, needs, rule, flops, strict=True)
    )
    error = sum(part * cost for part, cost in zip(rule, flops, strict=True))
    return Prediction(
        members, statistics.mean(totals), math.hypot(_deviation(totals), error), sum(flops)
    )


def fraction_left(source: MemberResult, member: MemberResult, metric: str | None = None) -> float:
    """The part of a member's curve alone that lies beyond its source's final figure; 0 where it
    never gets there.

    ``metric`` is 'split/name', None for the main one. Linear between the two evaluations around the
    crossing; a curve that begins beyond it has crossed at its first. 1 where there is nothing to
    compare.
    """
    name = metric or source.main_metric or ""
    reached = source.metrics.get(name)
    if reached is None or reached["value"] is None or not member.curve:
        return 1.0
    sign = -1 if reached["higher_is_better"] else 1
    goal, total = sign * reached["value"], member.curve[-1].iteration
    before, last = 0, math.inf
    for point in member.curve:
        given = point.metrics.get(name)
        value = math.inf if given is None else sign * given
        if value <= goal:
            part = (last - goal) / (last - value) if math.isfinite(last) and last > value else 1.0
            return 1 - (before + part * (point.iteration - before)) / total
        before, last = point.iteration, value
    return 0.0 if math.isfinite(last) else 1.0


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
