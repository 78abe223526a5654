"""Find, on the choosing seeds, the least that every grown member has to be trained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compt.planning.rule import required_step
from measuring.curves import length_to
from measuring.family import CHOOSING, Recipe
from measuring.job import Job
from measuring.rates import STEP, Sweep
from measuring.rule import expected_width, margins
from measuring.runs import Bench
from measuring.show import text_of

SHARES = 16
"""Budgets are tried in steps of one in so many."""
FIRST_SHARES = 2 * SHARES
"""What a first member may have at most, where it is trained otherwise in the chain than alone."""
GROWN_SHARES = 5 * SHARES // 4
"""What a grown member may have at most: more than alone, where what it inherits is in its way."""
BEYOND = 0.17
"""Share of the budget beyond what is left to learn, with which a hop's search begins."""
HIGHEST, LOWEST = 2, -10
"""Steps of the grid from its own learning rate that a grown member is tried at, at most."""


@dataclass(frozen=True)
class Hop:
    """One member and what it has to reach."""

    index: int
    iters: int
    """Of the member alone."""
    rate: float
    """Of the member alone."""
    goal: float
    """Mean quality over the choosing seeds."""
    sources: tuple[Job, ...]
    """Runs that it grows from, one a choosing seed; none of the first member."""


@dataclass(frozen=True)
class Search:
    """A chain that was found, and what that took."""

    recipe: Recipe
    tried: tuple[Mapping[str, float], ...]
    """Of every grown member, mean quality less its goal, by 'FRACTION at FACTOR'."""
    goals: tuple[float, ...]
    """Of every grown member, the mean quality that it has to reach."""
    sources: tuple[float, ...]
    """Mean quality of what each is grown from."""
    reached: tuple[bool, ...]
    """Whether each grown member reached its goal, at the most it may have."""
    flops: float
    """What the search took, less what runs took that diverged."""
    first: Mapping[str, float] = field(default_factory=dict)
    """As ``tried``, of a first member that is trained otherwise in the chain than alone."""


def search(
    bench: Bench,
    sweep: Sweep,
    curves: Sequence[Mapping[int, float]],
    spreads: Sequence[float],
) -> Search:
    """Find the least budget of every grown member, one hop after the other, and its way to grow.

    Goals take half of the rule's margin; the other half is left for what other seeds change. Where
    the family says ``sure``, they are as far above the rule's bound as that is expected to lie
    below the mean.

    Args:
        bench: where to run.
        sweep: of the members alone at the row's length.
        curves: of every member, quality alone by length.
        spreads: of every member alone, the standard deviation over seeds.
    """
    slack = margins([[quality] for quality in sweep.best])
    given = [
        margin - expected_width(spread) if bench.family.sure else margin / 2
        for margin, spread in zip(slack, spreads, strict=True)
    ]
    goal = sweep.best[0] - given[0]
    first = _Finder(bench, Hop(0, sweep.iters, sweep.rates[0], goal, ()))
    # As alone it needs its whole budget: nobody looks for the least that is within the margin.
    share, mult = first.least(SHARES) if bench.family.in_chain else (SHARES, 1.0)
    jobs = first.jobs(share, mult)
    bench.run(jobs, diverging=False)
    fractions, mults, flops = [share / SHARES], [mult], first.flops
    ways: list[Mapping[str, Any]] = [first.way]
    tried: list[Mapping[str, float]] = []
    goals: list[float] = []
    sources: list[float] = []
    reached: list[bool] = []
    for index in range(1, len(sweep.rates)):
        source = statistics.mean(map(bench.quality_of, jobs))
        alone, alone_source = sweep.best[index], sweep.best[index - 1]
        step = required_step(alone, alone_source, source)
        goal = max(alone - given[index], source + step)
        hop = Hop(index, sweep.iters, sweep.rates[index], goal, tuple(jobs))
        bench.say(f"  {bench.family.members[index]['name']}: quality to reach {goal:+.4f}")
        finder = _Finder(bench, hop)
        share, mult = finder.least(_first_guess(source, curves[index], sweep.iters))
        jobs = finder.jobs(share, mult)
        bench.run(jobs, diverging=False)
        fractions.append(share / SHARES)
        mults.append(mult)
        ways.append(finder.way)
        tried.append(finder.tried)
        goals.append(goal)
        sources.append(source)
        reached.append(finder.gain(share, mult) >= 0)
        flops += finder.flops
    recipe = Recipe(tuple(fractions), tuple(mults), tuple(ways))
    found = tuple(tried), tuple(goals), tuple(sources), tuple(reached)
    return Search(recipe, *found, flops, first.tried)


def _first_guess(source: float, curve: Mapping[int, float], iters: int) -> int:
    """Return the share that should do, from what the source is worth on the member's curve."""
    fraction = 1 - min(1.0, length_to(source, curve) / iters) + BEYOND
    return min(SHARES, max(1, round(SHARES * fraction)))


class _Finder:
    """The runs of one hop."""

    def __init__(self, bench: Bench, hop: Hop) -> None:
        self.bench, self.hop = bench, hop
        self.ways = bench.family.hop_ways if hop.index else (bench.family.first_ways,)
        self.way = self.ways[0]
        self.most = GROWN_SHARES if hop.index else FIRST_SHARES
        self._gains: dict[tuple[int, float, str], float] = {}
        self._flops: dict[tuple[int, float, str], float] = {}

    @property
    def flops(self) -> float:
        """Of all runs so far."""
        return sum(self._flops.values())

    @property
    def tried(self) -> dict[str, float]:
        """What every run so far came to."""
        gains = self._gains.items()
        return {f"{share / SHARES:g} at {mult:g}{way}": gain for (share, mult, way), gain in gains}

    def least(self, share: int) -> tuple[int, float]:
        """Return the least share that reaches the goal, and its factor of the learning rate.

        The way to grow is chosen at the share given, each way at the better of two rates, then the
        rate; then shares are closed in on, up to the most, which is the answer where none suffices.
        """
        if len(self.ways) > 1:
            rates = STEP**0, STEP**-1
            self.way = max(
                self.ways, key=lambda way: max(self.gain(share, rate, way) for rate in rates)
            )
        mult = self._best_mult(share)
        low, high = 0, self.most + 1
        while high - low > 1:
            if self.gain(share, mult) >= 0:
                high = share
            else:
                low = share
            share = self._next(low, high, mult)
        return min(high, self.most), mult

    def _next(self, low: int, high: int, mult: float) -> int:
        """Return the share to try between one that fails and one that suffices.

        Where the line between their gains crosses the goal; two further where one of the two is
        not known yet, and half of the way where the one that fails diverged.
        """
        if high > self.most:
            return min(self.most, low + 2) if low < self.most else low
        if low == 0:
            return max(1, high - 2)
        below, above = self.gain(low, mult), self.gain(high, mult)
        if math.isinf(below):
            return (low + high) // 2
        crossing = low + (high - low) * -below / (above - below)
        return min(high - 1, max(low + 1, round(crossing)))

    def _best_mult(self, share: int) -> float:
        """Return the factor of the learning rate whose neighbours on the grid are worse.

        Of equal ones it is the lower, so that those that diverge lead down.
        """
        gains = {step: self.gain(share, STEP**step) for step in (0, -1)}
        while True:
            best = max(gains, key=lambda step: (gains[step], -step))
            if best == max(gains) < HIGHEST:
                step = best + 1
            elif best == min(gains) > LOWEST:
                step = best - 1
            else:
                return float(STEP**best)
            gains[step] = self.gain(share, STEP**step)

    def gain(self, share: int, mult: float, way: Mapping[str, Any] | None = None) -> float:
        """Return the mean quality less the goal, grown in the way chosen, or another."""
        way = self.way if way is None else way
        text = f" by {text_of(way)}" if len(self.ways) > 1 else ""
        key = share, round(mult, 6), text
        if key not in self._gains:
            jobs = self.jobs(share, mult, way)
            self.bench.run(jobs)
            quality = statistics.mean(map(self.bench.quality_of, jobs))
            self._gains[key] = quality - self.hop.goal
            self._flops[key] = sum(job.flops for job in jobs)
            fraction = share / SHARES
            self.bench.say(
                f"    {fraction:g} at {mult:.2f} of its rate{text}: {self._gains[key]:+.4f}"
            )
        return self._gains[key]

    def jobs(self, share: int, mult: float, way: Mapping[str, Any] | None = None) -> list[Job]:
        """Return the runs of a share of the budget, one a choosing seed, as :meth:`gain`'s."""
        hop = self.hop
        iters = max(1, round(hop.iters * share / SHARES))
        way, rate = way or self.way, mult * hop.rate
        if not hop.index:
            return [self.bench.source(0, iters, rate, seed, way) for seed in CHOOSING]
        return [
            self.bench.grown(hop.index, source, iters, rate, seed, way)
            for source, seed in zip(hop.sources, CHOOSING, strict=True)
        ]
