"""Train every member alone at its own best learning rate, which is the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compt.errors import ComptError
from measuring.runs import Bench


def sweep(bench: Bench, members: Sequence[int] | range) -> list[dict[float, float]]:
    """Return the quality on seed 0 of every member alone, by learning rate.

    Rates are added until the best one has a worse one on both sides.
    """
    plan = bench.plan
    factors = [2.0 ** (k - plan.rates // 2) for k in range(plan.rates)]
    qualities: dict[int, dict[float, float]] = {i: {} for i in members}
    due = {i: [plan.members[i]["lr"] * factor for factor in factors] for i in members}
    while any(due.values()):
        pairs = [(i, rate) for i in reversed(list(members)) for rate in due[i]]
        jobs = [bench.alone(i, rate, 0) for i, rate in pairs]
        for (i, rate), job, failed in zip(pairs, jobs, bench.run(jobs), strict=True):
            qualities[i][rate] = -math.inf if failed else bench.quality(job.members()[0])
        for i in members:
            rate = best(qualities[i])
            beyond = {min(qualities[i]): rate / 2, max(qualities[i]): rate * 2}
            due[i] = [beyond[rate]] if rate in beyond and plan.rates > 1 else []
    return [dict(sorted(qualities[i].items())) for i in members]


def best(qualities: Mapping[float, float]) -> float:
    """Return the learning rate of the best quality."""
    return max(qualities, key=lambda rate: qualities[rate])


def raise_first(failures: Sequence[str]) -> None:
    """Raise the first message of what went wrong, where nothing may."""
    for message in filter(None, failures):
        raise ComptError(message)
