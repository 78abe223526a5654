"""The baseline: every member alone at its own best learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compt.errors import ComptError
from measuring.runs import Bench


def sweep(bench: Bench, members: Sequence[int] | range) -> list[dict[float, float]]:
    """For members alone, learning rate -> quality on seed 0: extended until the best is inside."""
    plan = bench.plan
    middle = plan.rates // 2
    found: dict[int, dict[float, float]] = {i: {} for i in members}
    due = {
        i: [plan.members[i]["lr"] * 2.0 ** (k - middle) for k in range(plan.rates)] for i in members
    }
    while any(due.values()):
        pairs = [(i, rate) for i in reversed(list(members)) for rate in due[i]]
        jobs = [bench.alone(i, rate, 0) for i, rate in pairs]
        for (i, rate), job, failed in zip(pairs, jobs, bench.run(jobs), strict=True):
            found[i][rate] = -math.inf if failed else bench.quality(job.members()[0])
        for i in members:
            rate = best(found[i])
            ends = {min(found[i]): rate / 2, max(found[i]): rate * 2}
            due[i] = [ends[rate]] if rate in ends and plan.rates > 1 else []
    return [dict(sorted(found[i].items())) for i in members]


def best(found: Mapping[float, float]) -> float:
    """The learning rate of the best quality."""
    return max(found, key=lambda rate: found[rate])


def raise_first(failed: Sequence[str]) -> None:
    """Raise the first thing that went wrong, where nothing may."""
    for message in filter(None, failed):
        raise ComptError(message)
