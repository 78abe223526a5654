"""Measure what a chain has to be held against, beside every member alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compt.planning.rule import LONGER
from measuring.curves import length_to
from measuring.elsewhere import gains
from measuring.family import published_fractions
from measuring.job import Job
from measuring.rule import margins
from measuring.runs import Bench


@dataclass(frozen=True)
class Reached:
    """What one control comes to, beside the largest member of the chain or alone."""

    iters: int
    """Of the largest member in it."""
    flops: float
    """Of that member."""
    gain: float
    """Mean quality less that of what it is compared with, over the controls' seeds; -inf where one
    of them diverged."""
    values: tuple[float, ...]
    """Of the held-out metric, by seed."""
    elsewhere: Mapping[str, float] = field(default_factory=dict)
    """The same gain on other held-out splits, by name of the figure; for recipes alone."""


@dataclass(frozen=True)
class Padded:
    """What a chain would score that stops at a member good enough for all after it.

    The members after that one are grown exactly, and never trained: all are as good as alone, and
    no better than one another.
    """

    member: str
    """At which it stops."""
    longer: float
    """How many times its budget alone that member would be trained."""
    ratio: float
    """Compute of every member alone by that of the padded chain."""
    measured: bool
    """Whether the length was measured.

    Else a curve was carried on, which flatters it, or never comes there, and the ratio is 0.
    """


def padded(
    names: Sequence[str],
    costs: Sequence[float],
    alone: Sequence[float],
    curves: Sequence[Mapping[int, float]],
    iters: int,
    grown_costs: Sequence[float] | None = None,
) -> Padded:
    """Return the best of all chains that stop and pad.

    Such a chain may be grown up to the member that it stops at, which it trains on as if that were
    the member alone.

    Args:
        names: of the members.
        costs: of every member alone.
        alone: mean qualities alone.
        curves: of every member, quality alone by length.
        iters: that every member has alone.
        grown_costs: of every member in a chain as good as alone; without one, as alone.
    """
    grown_costs = costs if grown_costs is None else grown_costs
    slack = margins([[quality] for quality in alone])
    goals = [quality - margin for quality, margin in zip(alone, slack, strict=True)]
    options = []
    for i, curve in enumerate(curves[:-1]):
        longer = max(1.0, length_to(max(goals[i:]), curve) / iters)
        cost = sum(grown_costs[: i + 1]) + costs[i] * (longer - 1)
        is_measured = longer * iters <= max(curve)
        options.append(Padded(names[i], longer, sum(costs) / cost, is_measured))
    return max(options, key=lambda option: option.ratio)


def smallest_longer(bench: Bench, iters: int, rate: float) -> list[Job]:
    """Return the runs of the smallest member, trained longer, at the better of two rates.

    Longer runs want lower rates; there is no sweep, so the second is lower by half.
    """
    seeds = bench.family.judging(iters)[: bench.family.control_seeds]
    pairs = [
        [bench.alone(0, LONGER * iters, factor * rate, seed) for seed in seeds]
        for factor in (1.0, 0.5)
    ]
    bench.run([job for jobs in pairs for job in jobs])
    return max(pairs, key=lambda jobs: statistics.mean(map(bench.quality_of, jobs)))


def largest_for(
    bench: Bench, iters: int, rate: float, against: Sequence[float], length: int
) -> Reached:
    """Train the largest member alone for another length, at its rate for the row's.

    Args:
        bench: where to run.
        iters: the row's length.
        rate: of the largest member alone.
        against: qualities to compare with, by judging seed.
        length: of the runs.
    """
    index = len(bench.family.members) - 1
    seeds = bench.family.judging(iters)[: bench.family.control_seeds]
    jobs = [bench.alone(index, length, rate, seed) for seed in seeds]
    bench.run(jobs)
    return _reached(bench, jobs, length, against)


def by_recipe(
    bench: Bench,
    recipe: Mapping[str, Any],
    iters: int,
    rates: Sequence[float],
    alone: Sequence[Sequence[Job]],
) -> list[Reached]:
    """Train a chain at given budgets and the members' own rates, as the published method's.

    Args:
        bench: where to run.
        recipe: ways to grow, and ``fractions``; nothing is trained where it is empty.
        iters: the row's length.
        rates: of every member alone.
        alone: every member alone, by judging seed.

    Returns:
        What every member comes to beside the same member alone, up to one that diverged, from which
        nothing can be grown.
    """
    family = bench.family
    if not recipe:
        return []
    ways = {key: value for key, value in recipe.items() if key != "fractions"}
    fractions = published_fractions(recipe, len(family.members))
    lengths = [max(1, round(fraction * iters)) for fraction in fractions]
    seeds = family.judging(iters)[: family.control_seeds]
    jobs = [bench.source(0, lengths[0], rates[0], seed, ways) for seed in seeds]
    results: list[Reached] = []
    for index, length in enumerate(lengths):
        if index:
            jobs = [
                bench.grown(index, source, length, rates[index], seed, ways)
                for source, seed in zip(jobs, seeds, strict=True)
            ]
        bench.run(jobs)
        reached = _reached(bench, jobs, length, list(map(bench.quality_of, alone[index])))
        results.append(replace(reached, elsewhere=gains(bench, jobs, alone[index])))
        if any(job.diverged for job in jobs):
            break
    return results


def _reached(bench: Bench, jobs: Sequence[Job], iters: int, against: Sequence[float]) -> Reached:
    """Return what runs came to beside others of the same seeds, which may be more."""
    pairs = zip(map(bench.quality_of, jobs), against, strict=False)
    return Reached(
        iters=iters,
        flops=statistics.mean(job.flops for job in jobs),
        gain=statistics.mean(quality - other for quality, other in pairs),
        values=tuple(map(bench.value_of, jobs)),
    )
