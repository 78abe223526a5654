"""Sum up what every member reached and cost, alone and in the chain, as JSON types."""

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
    """For every member, the held-out metric at its full budget by learning rate."""
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
    """What one member reaches and costs, means over the seeds with standard deviations."""

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
    """Whether it is no worse than alone, and no worse than the member it was grown from.

    Neither gain is further below 0 than its standard error, or than a tenth of what parts the two
    members alone. Noise excuses little."""
    alone_flops: float
    chain_flops: float
    reached_flops: float | None
    """FLOPs until its curve first is as good as the member alone with the same seed.

    Those of all members before it are included. None where a seed never is as good."""
    reached_seconds: float | None
    """The same in seconds."""
    alone_seconds: float
    chain_seconds: float
    predicted_fraction: float
    """From members alone, as the planner does."""
    predicted_deviation: float


def outcome(bench: Bench, choice: Choice, chains: Runs, alone: Runs) -> dict[str, Any]:
    """Return everything that was measured.

    Args:
        bench: where it was measured.
        choice: rates and budgets.
        chains: members of the chains, by judging seed.
        alone: the same members alone.
    """
    plan = bench.plan
    predicted = predict_members([[member.record for member in run] for run in alone], plan.metric)
    rows = list(_rows(bench, choice, chains, alone, predicted))
    flops = {way: sum(getattr(row, f"{way}_flops") for row in rows) for way in ("alone", "chain")}
    return {
        "name": plan.name,
        "command": repeating(sys.argv),
        "iters": plan.iters,
        "batch_size": plan.base.get("train_dataloader", {}).get("batch_size"),
        "seeds": list(plan.judging),
        **plan.ways,
        "floor": plan.floor,
        "metric": plan.metric or alone[0][0].record.main_metric,
        "higher_is_better": bench.sign(alone[0][0]) > 0,
        "sweeps": {
            row.name: _by_name(sweep) for row, sweep in zip(rows, choice.sweeps, strict=True)
        },
        "searches": [_search(search, rows, flops["alone"]) for search in choice.searches],
        "members": [asdict(row) for row in rows],
        "missed": [row.name for row in rows if not row.as_good],
        **_ratios(rows, flops),
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


def _search(search: Search, rows: Sequence[Row], alone_flops: float) -> dict[str, Any]:
    """Return what a chain that was tried came to.

    The gains end where it was given up.
    """
    grown = zip(rows[1:], search.gains, strict=False)
    finite = math.isfinite(search.flops)
    return {
        "longer": search.longer,
        "fractions": search.fractions,
        "lr_mults": search.lr_mults,
        "gains": {row.name: _by_name(gains) for row, gains in grown},
        "missed": search.missed,
        "acceleration": alone_flops / search.flops if finite else None,
    }


def _ratios(rows: Sequence[Row], flops: Mapping[str, float]) -> dict[str, Any]:
    """Return the family's costs and accelerations, which a missed member takes away."""
    seconds = {
        way: sum(getattr(row, f"{way}_seconds") for row in rows) for way in ("alone", "chain")
    }
    all_as_good = all(row.as_good for row in rows)
    ratio, ratio_seconds = flops["alone"] / flops["chain"], seconds["alone"] / seconds["chain"]
    largest = rows[-1]
    return {
        "flops": flops,
        "seconds": seconds,
        "acceleration": ratio if all_as_good else None,
        "acceleration_if_none_were_missed": ratio,
        "acceleration_seconds": ratio_seconds if all_as_good else None,
        "acceleration_of_the_largest": largest.alone_flops / flops["chain"]
        if largest.as_good
        else None,
    }


def _rows(
    bench: Bench, choice: Choice, chains: Runs, alone: Runs, predicted: Prediction
) -> Iterator[Row]:
    """Yield every member over all seeds, small to large."""
    goal = math.nan
    for i, member in enumerate(bench.plan.members):
        grown, trained = [run[i] for run in chains], [run[i] for run in alone]
        gains = [bench.quality(a) - bench.quality(b) for a, b in zip(grown, trained, strict=True)]
        over = [bench.quality(run[i]) - bench.quality(run[i - 1]) for run in chains] if i else []
        source_goal, goal = goal, statistics.mean(map(bench.quality, trained))
        excused = abs(goal - source_goal) / 10
        alone_values, chain_values = (list(map(bench.value, runs)) for runs in (trained, grown))
        reached_flops, reached_seconds = _mean_reached(bench, i, chains, trained)
        yield Row(
            name=member["name"],
            params=trained[0].record.params,
            lr=choice.rates[i],
            fraction=choice.recipe.fractions[i],
            lr_mult=choice.recipe.lr_mults[i],
            alone=statistics.mean(alone_values),
            alone_deviation=deviation(alone_values),
            chain=statistics.mean(chain_values),
            chain_deviation=deviation(chain_values),
            gain=statistics.mean(gains),
            standard_error=_error(gains),
            as_good=_suffices(gains, excused) and _suffices(over, excused),
            alone_flops=statistics.mean(result.flops for result in trained),
            chain_flops=statistics.mean(result.flops for result in grown),
            reached_flops=reached_flops,
            reached_seconds=reached_seconds,
            alone_seconds=statistics.mean(result.record.seconds for result in trained),
            chain_seconds=statistics.mean(result.record.seconds for result in grown),
            predicted_fraction=predicted.members[i].fraction,
            predicted_deviation=predicted.members[i].deviation,
        )


def _mean_reached(
    bench: Bench, index: int, chains: Runs, trained: Sequence[MemberResult]
) -> tuple[float | None, float | None]:
    """Return mean FLOPs and seconds until a member is as good as alone, None if a seed never is."""
    reached = [
        _reached(bench, run[: index + 1], bench.quality(alone))
        for run, alone in zip(chains, trained, strict=True)
    ]
    costs = [cost for cost in reached if cost is not None]
    if len(costs) < len(reached):
        return None, None
    return statistics.mean(flops for flops, _ in costs), statistics.mean(s for _, s in costs)


def _reached(
    bench: Bench, members: Sequence[MemberResult], goal: float
) -> tuple[float, float] | None:
    """Return FLOPs and seconds of a chain until its last member is as good as the goal.

    At the first evaluation that is; None where none is.
    """
    *ancestors, last = members
    sign, metric = bench.sign(last), bench.metric(last)
    for point in last.record.curve:
        value = point.value(metric)
        if value is not None and sign * value >= goal:
            seconds = sum(member.record.seconds for member in ancestors) + point.seconds
            return last.ancestor_flops + point.flops, seconds
    return None


def _suffices(gains: Sequence[float], excused: float) -> bool:
    """Return whether gains, one a seed, are no losses.

    Noise excuses no more than ``excused``.
    """
    mean = statistics.mean(gains or [0.0])
    return mean >= 0 or mean >= -min(_error(gains), excused)


def _error(values: Sequence[float]) -> float:
    """Return the standard error of a mean, NaN of one value."""
    return deviation(values) / math.sqrt(len(values))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample, NaN of one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _by_name(values: Mapping[float, float]) -> dict[str, float]:
    return {f"{key:g}": value for key, value in sorted(values.items())}


def _curve(member: MemberResult, metric: str | None) -> list[tuple[float, float | None]]:
    """Return FLOPs, those of all ancestors included, and the metric's value."""
    name = metric or member.record.main_metric or ""
    return [
        (member.ancestor_flops + point.flops, point.value(name)) for point in member.record.curve
    ]
