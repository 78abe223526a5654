"""Find every member's own best learning rate at a length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compt.errors import DivergedError
from measuring.family import CHOOSING
from measuring.job import Job
from measuring.runs import Bench

STEP = 2**0.5
"""Between two learning rates of a sweep."""
MOST_DIVERGED = 20
"""Rates of one member after which a sweep ends where all diverge."""


@dataclass(frozen=True)
class Sweep:
    """Members alone at one length, on the choosing seeds."""

    iters: int
    qualities: tuple[Mapping[float, float], ...]
    """Of every member, the mean quality by learning rate, as they were tried."""
    flops: float
    """What the sweep took, less what runs took that diverged."""

    @property
    def rates(self) -> list[float]:
        """The best one of every member."""
        return [max(by_rate, key=lambda rate: by_rate[rate]) for by_rate in self.qualities]

    @property
    def best(self) -> list[float]:
        """The quality of every member at it."""
        return [max(by_rate.values()) for by_rate in self.qualities]


def sweep(bench: Bench, iters: int, starts: Sequence[float], *, searching: bool = True) -> Sweep:
    """Train members alone at rates until the best of each has a worse one on both sides.

    A run that diverges has the quality -inf.

    Args:
        bench: where to run.
        iters: length of the runs.
        starts: the rate of every member to begin with.
        searching: False trains with these rates only.

    Raises:
        DivergedError: a member diverges at every rate.
    """
    qualities: list[dict[float, float]] = [{} for _ in starts]
    factors = (1 / STEP, 1.0, STEP) if searching else (1.0,)
    due = [[start * factor for factor in factors] for start in starts]
    flops = 0.0
    while any(due):
        runs = {
            (index, rate): [bench.alone(index, iters, rate, seed) for seed in CHOOSING]
            for index, rates in enumerate(due)
            for rate in rates
        }
        flops += _run(bench, [job for jobs in runs.values() for job in jobs])
        for (index, rate), jobs in runs.items():
            qualities[index][rate] = statistics.mean(map(bench.quality_of, jobs))
        due = [_beyond(by_rate) if searching else [] for by_rate in qualities]
    return Sweep(iters, tuple(qualities), flops)


def _run(bench: Bench, jobs: Sequence[Job]) -> float:
    """Run jobs, and return what they took."""
    bench.run(jobs)
    return sum(job.flops for job in jobs)


def _beyond(qualities: Mapping[float, float]) -> list[float]:
    """Return the rate next to the best one where that is at an end, none where it is not.

    Raises:
        DivergedError: runs diverge however low the rate is.
    """
    best = max(qualities, key=lambda rate: qualities[rate])
    if math.isinf(qualities[best]):
        if len(qualities) > MOST_DIVERGED:
            raise DivergedError(f"Every learning rate down to {min(qualities):.3g} diverges.")
        return [min(qualities) / STEP]
    if best == min(qualities):
        return [best / STEP]
    return [best * STEP] if best == max(qualities) else []
