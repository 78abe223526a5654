"""Finished runs -> what every member reached and cost, alone and in the chain, as JSON types."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compt.report.prediction import Prediction, predict_members
from compt.report.record import environment
from compt.report.results import MemberResult
from measuring.budgets import Search
from measuring.command import repeating
from measuring.family import Recipe
from measuring.runs import Bench

Runs = Sequence[Sequence[MemberResult]]
"""By seed, the members small to large."""


@dataclass(frozen=True)
class Choice:
    """What was chosen before the judging seeds, and what that took."""

    sweeps: Sequence[Mapping[float, float]]
    """For every member, learning rate -> held-out figure at its full budget."""
    rates: Sequence[float]
    recipe: Recipe
    """The chain that was trained."""
    searches: Sequence[Search]
    """Every chain tried; none where the preset has the recipe."""
    swept: float
    """FLOPs of the sweeps."""
    searched: float
    """FLOPs of the search, every run once."""


@dataclass(frozen=True)
class Row:
    """One member: what it reaches and costs, means over the seeds with standard deviations."""

    name: str
    params: int
    lr: float
    fraction: float
    lr_mult: float
    """The learning rate in the chain relative to the member's own."""
    alone: float
    alone_deviation: float
    chain: float
    chain_deviation: float
    gain: float
    """Of the chain over alone, positive where it is better."""
    standard_error: float
    """Of the gain, from the seeds; NaN with one."""
    as_good: bool
    """Whether it is no worse than alone, and no worse than the member it was grown from: neither
    gain is further below 0 than its standard error, or than a tenth of what parts the two members
    alone. Noise excuses little."""
    alone_flops: float
    chain_flops: float
    reached_flops: float | None
    """FLOPs, those of all members before it included, until its curve first is as good as the
    member alone with the same seed; None where a seed never is."""
    reached_seconds: float | None
    """The same in seconds."""
    alone_seconds: float
    chain_seconds: float
    predicted_fraction: float
    """From members alone, as the planner does."""
    predicted_deviation: float


def outcome(bench: Bench, choice: Choice, chains: Runs, alone: Runs) -> dict[str, Any]:
    """Everything that was measured.

    Args:
        choice: rates and budgets.
        chains: members of the chains, by judging seed.
        alone: the same members alone.
    """
    plan = bench.plan
    predicted = predict_members(alone, plan.metric)
    rows = list(_rows(bench, choice, chains, alone, predicted))
    everyone = all(row.as_good for row in rows)
    flops, seconds = (
        {way: sum(getattr(row, f"{way}_{unit}") for row in rows) for way in ("alone", "chain")}
        for unit in ("flops", "seconds")
    )
    return {
        "name": plan.name,
        "command": repeating(sys.argv),
        "iters": plan.iters,
        "batch_size": plan.base.get("train_dataloader", {}).get("batch_size"),
        "seeds": list(plan.judging),
        **plan.ways,
        "floor": plan.floor,
        "metric": plan.metric or alone[0][0].main_metric,
        "higher_is_better": bench.sign(alone[0][0]) > 0,
        "sweeps": {row.name: _named(found) for row, found in zip(rows, choice.sweeps, strict=True)},
        "searches": [
            {
                "longer": search.longer,
                "fractions": search.fractions,
                "lr_mults": search.lr_mults,
                "gains": {
                    row.name: _named(gains)
                    for row, gains in zip(rows[1:], search.gains, strict=False)
                },
                "missed": search.missed,
                "acceleration": flops["alone"] / search.flops
                if math.isfinite(search.flops)
                else None,
            }
            for search in choice.searches
        ],
        "members": [asdict(row) for row in rows],
        "missed": [row.name for row in rows if not row.as_good],
        "flops": flops,
        "seconds": seconds,
        "acceleration": flops["alone"] / flops["chain"] if everyone else None,
        "acceleration_if_none_were_missed": flops["alone"] / flops["chain"],
        "acceleration_seconds": seconds["alone"] / seconds["chain"] if everyone else None,
        "acceleration_of_the_largest": rows[-1].alone_flops / flops["chain"]
        if rows[-1].as_good
        else None,
        "predicted_acceleration": predicted.acceleration,
        "predicted_deviation": predicted.acceleration_deviation,
        "spent_on_choosing": {
            "sweep": choice.swept,
            "search": choice.searched,
        },
        "curves": {
            way: [[_curve(member, plan.metric) for member in run] for run in runs]
            for way, runs in (("alone", alone), ("chain", chains))
        },
        "environment": environment(),
    }


def _rows(
    bench: Bench, choice: Choice, chains: Runs, alone: Runs, predicted: Prediction
) -> Iterator[Row]:
    """Every member over all seeds."""
    goal = math.nan
    for i, given in enumerate(bench.plan.members):
        ours, theirs = [run[i] for run in chains], [run[i] for run in alone]
        gains = [bench.quality(a) - bench.quality(b) for a, b in zip(ours, theirs, strict=True)]
        gain, error = statistics.mean(gains), _error(gains)
        over = [bench.quality(run[i]) - bench.quality(run[i - 1]) for run in chains] if i else []
        figures = {
            way: [bench.figure(m) for m in members] for way, members in (("a", theirs), ("c", ours))
        }
        before, goal = goal, statistics.mean(bench.quality(member) for member in theirs)
        reached = [
            _reached(bench, run[: i + 1], bench.quality(other))
            for run, other in zip(chains, theirs, strict=True)
        ]
        yield Row(
            name=given["name"],
            params=theirs[0].params,
            lr=choice.rates[i],
            fraction=choice.recipe.fractions[i],
            lr_mult=choice.recipe.lr_mults[i],
            alone=statistics.mean(figures["a"]),
            alone_deviation=deviation(figures["a"]),
            chain=statistics.mean(figures["c"]),
            chain_deviation=deviation(figures["c"]),
            gain=gain,
            standard_error=error,
            as_good=all(_suffices(each, abs(goal - before) / 10) for each in (gains, over)),
            alone_flops=statistics.mean(member.flops for member in theirs),
            chain_flops=statistics.mean(member.flops for member in ours),
            reached_flops=statistics.mean(r[0] for r in reached if r) if all(reached) else None,
            reached_seconds=statistics.mean(r[1] for r in reached if r) if all(reached) else None,
            alone_seconds=statistics.mean(member.seconds for member in theirs),
            chain_seconds=statistics.mean(member.seconds for member in ours),
            predicted_fraction=predicted.members[i].fraction,
            predicted_deviation=predicted.members[i].deviation,
        )


def _reached(
    bench: Bench, members: Sequence[MemberResult], goal: float
) -> tuple[float, float] | None:
    """FLOPs and seconds of a chain until the first evaluation of its last member that is as good as
    the goal.
    """
    *before, last = members
    sign, metric = bench.sign(last), bench.plan.metric or last.main_metric or ""
    for point in last.curve:
        value = point.metrics.get(metric)
        if value is not None and sign * value >= goal:
            return last.ancestor_flops + point.flops, sum(
                member.seconds for member in before
            ) + point.seconds
    return None


def _suffices(gains: Sequence[float], excused: float) -> bool:
    """Whether gains, one a seed, are no losses; noise excuses no more than this."""
    mean = statistics.mean(gains or [0.0])
    return mean >= 0 or mean >= -min(_error(gains), excused)


def _error(values: Sequence[float]) -> float:
    """The standard error of a mean, NaN of one value."""
    return deviation(values) / math.sqrt(len(values))


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample, NaN of one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _named(found: Mapping[float, float]) -> dict[str, float]:
    return {f"{key:g}": value for key, value in sorted(found.items())}


def _curve(member: MemberResult, metric: str | None) -> list[tuple[float, float | None]]:
    """FLOPs, those of all ancestors included, and the figure."""
    name = metric or member.main_metric or ""
    return [
        (member.ancestor_flops + point.flops, point.metrics.get(name)) for point in member.curve
    ]
