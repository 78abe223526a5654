"""Search for how long each member of a chain has to train once it is grown.

The search has seeds of its own, on which nothing is reported.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compt.report.prediction import fraction_left
from compt.report.results import MemberResult
from measuring.baseline import raise_first
from measuring.family import Recipe
from measuring.runs import Bench, Job, digest

STEP = 1.5
"""By how much longer a member is tried each time."""


@dataclass(frozen=True)
class Search(Recipe):
    """One chain that was tried."""

    longer: tuple[float, ...]
    """How many times longer than it needs itself each member trains; 1 for the last."""
    gains: tuple[Mapping[float, float], ...]
    """For every grown member, the gain of every fraction that was tried.

    Over the member alone, or its source if that is better, on the worst choosing seed."""
    flops: float
    """Of the whole chain, mean of the choosing seeds.

    Infinite where it was given up at the last of ``gains``, because more of that member would make
    it no cheaper than a chain that is known."""

    @property
    def missed(self) -> bool:
        """Whether a member is not as good at any fraction tried."""
        return any(max(gains.values(), default=-math.inf) < 0 for gains in self.gains)


def rank(search: Search) -> tuple[bool, float]:
    """Return a key by which the best chain comes first, one without a missed member before all."""
    return search.missed, search.flops


@dataclass(frozen=True)
class Hop:
    """What a grown member starts from."""

    index: int
    """Of the member."""
    folders: tuple[Path, ...]
    """The stages of its source, by choosing seed."""
    sources: tuple[MemberResult, ...]
    """What the source reached, by choosing seed."""


class Budgets:
    """The search for a chain's budgets.

    Args:
        bench: where to run.
        rates: the learning rate of every member.
        alone: the members alone, by judging seed: what the search begins from.
    """

    def __init__(
        self, bench: Bench, rates: Sequence[float], alone: Sequence[Sequence[MemberResult]]
    ) -> None:
        self.bench, self.rates, self.alone = bench, rates, alone
        self.spent: dict[Path, float] = {}
        """FLOPs of every run that the search took, by its folder."""
        self.goals = self._goals()

    def _goals(self) -> list[list[float]]:
        """Return what every member reaches alone, by choosing seed.

        A seed that is lucky for the chain is so for these too.
        """
        bench = self.bench
        jobs = [
            [bench.alone(i, rate, seed) for seed in bench.plan.choosing]
            for i, rate in enumerate(self.rates)
        ]
        raise_first(bench.run([job for by_seed in reversed(jobs) for job in by_seed]))
        return [list(map(bench.quality, self._trained(by_seed))) for by_seed in jobs]

    def search(self) -> list[Search]:
        """Return all chains that were tried.

        First one whose members train no longer than they need. Then, from the smallest on, longer
        by half each time, as long as that makes the whole chain cheaper: steps of a small member
        cost little, and save steps of larger ones. A chain is given up where it cannot become
        cheaper any more.
        """
        tried = [best := self._chain((1.0,) * len(self.rates), math.inf)]
        for index in range(len(self.rates) - 1):
            while best.longer[index] * STEP <= self.bench.plan.longest:
                longer = list(best.longer)
                longer[index] *= STEP
                chain = self._chain(tuple(longer), math.inf if best.missed else best.flops)
                tried.append(chain)
                if rank(chain) > rank(best):
                    break
                best = chain
        return tried

    def _chain(self, longer: tuple[float, ...], below: float) -> Search:
        """Try a chain, and give it up where it needs so many FLOPs.

        Every grown member trains for the smallest fraction that suffices, times its factor in
        ``longer``.
        """
        jobs = [self._first(longer[0], seed) for seed in self.bench.plan.choosing]
        results = self._trained(jobs)
        fractions, mults, gains = [longer[0]], [1.0], []
        total = _mean_flops(results)
        for index in range(1, len(self.rates)):
            hop = Hop(index, tuple(job.stages[-1] for job in jobs), tuple(results))
            grid = self._affordable(index, longer[index], total, below)
            tried = self._least(hop, grid)
            gains.append({fraction: gain for fraction, (gain, _) in sorted(tried.items())})
            enough = [fraction for fraction, (gain, _) in tried.items() if gain >= 0]
            if not enough and len(grid) < len(self.bench.plan.fractions):
                self.bench.say("  given up: with more of it no cheaper")
                return Search(tuple(fractions), tuple(mults), longer, tuple(gains), math.inf)
            fraction = min(enough) if enough else max(grid)
            fractions.append(longer[index] * fraction)
            mults.append(tried[fraction][1])
            jobs = self._grown(hop, fractions[-1], mults[-1])
            results = self._trained(jobs)
            total += _mean_flops(results)
        chain = Search(tuple(fractions), tuple(mults), longer, tuple(gains), total)
        shares = " - ".join(f"{fraction:g}" for fraction in fractions)
        missed = ", missed" if chain.missed else ""
        self.bench.say(f"  chain of {shares}: {total:.4g} FLOPs{missed}")
        return chain

    def _affordable(self, index: int, longer: float, total: float, below: float) -> list[float]:
        """Return the fractions, times a member's factor, that keep a chain below so many FLOPs.

        ``total`` is what the members before it take.
        """
        cost = longer * _mean_flops([run[index] for run in self.alone])
        fractions = self.bench.plan.fractions
        return [fraction for fraction in fractions if total + fraction * cost < below]

    def _least(self, hop: Hop, grid: Sequence[float]) -> dict[float, tuple[float, float]]:
        """Return the gain and the factor of the learning rate of every fraction that was tried.

        Down to the smallest that suffices: the first is the one that the curves alone suggest,
        doubled until it is enough, then what lies between is halved.
        """
        at = self._first_guess(hop, grid)
        low, high = 0, len(grid)
        tried: dict[float, tuple[float, float]] = {}
        mult = 1.0
        while low < high:
            gain, mult = tried[grid[at]] = self._best(hop, grid[at], mult)
            low, high = (low, at) if gain >= 0 else (at + 1, high)
            at = min(2 * at + 1, high - 1) if high == len(grid) else (low + high) // 2
        return tried

    def _first_guess(self, hop: Hop, grid: Sequence[float]) -> int:
        """Return where in the grid to begin.

        At half of what is left of the member's curve alone, at the smallest fraction where the
        sources are as good already.
        """
        metric = self.bench.plan.metric
        left = [
            fraction_left(source.record, run[hop.index].record, metric)
            for source in hop.sources
            for run in self.alone
        ]
        half = statistics.mean(left) / 2
        reached = statistics.mean(map(self.bench.quality, hop.sources))
        if reached >= statistics.mean(self.goals[hop.index]):
            half = 0.0
        return next((i for i, fraction in enumerate(grid) if fraction >= half), len(grid) - 1)

    def _best(self, hop: Hop, fraction: float, mult: float) -> tuple[float, float]:
        """Return gain and factor of the learning rate, the best around ``mult``.

        That itself where it suffices.
        """
        mults = self.bench.plan.lr_mults
        at = mults.index(mult)
        gains = {at: self._gain(hop, fraction, mult)}
        for step in (1, -1):
            while gains[at] < 0 and 0 <= at + step < len(mults):
                if at + step not in gains:
                    gains[at + step] = self._gain(hop, fraction, mults[at + step])
                if gains[at + step] <= gains[at]:
                    break
                at += step
        return gains[at], mults[at]

    def _gain(self, hop: Hop, fraction: float, mult: float) -> float:
        """Return how much better a grown member is than alone, and than its source.

        On the choosing seed where it is worst.
        """
        results = self._trained(self._grown(hop, fraction, mult))
        quality = self.bench.quality
        gain = min(
            quality(result) - max(goal, quality(source))
            for result, goal, source in zip(
                results, self.goals[hop.index], hop.sources, strict=True
            )
        )
        name = results[0].name
        self.bench.say(
            f"  {name} after {fraction:g} of its budget at {mult:g} lr: {gain:+.4f}, at worst"
        )
        return gain

    def _first(self, longer: float, seed: int) -> Job:
        """Return the run of the smallest member, longer than its budget alone."""
        if longer == 1:
            return self.bench.alone(0, self.rates[0], seed)
        plan = self.bench.plan
        name = f"{longer:g}_lr_{self.rates[0]:g}"
        folder = Path("longer") / plan.members[0]["name"] / name / f"seed_{seed}"
        stage = plan.member(0, self.rates[0], plan.iters_of(longer))
        return self.bench.chain(folder, [stage], seed)

    def _grown(self, hop: Hop, fraction: float, mult: float) -> list[Job]:
        """Return the runs of a member grown from each of its sources."""
        plan, rates, index = self.bench.plan, self.rates, hop.index
        jobs = []
        for source, seed in zip(hop.folders, plan.choosing, strict=True):
            first = {**plan.member(index - 1, rates[index - 1], 0), "init": str(source)}
            origin = digest([plan.ways, source.relative_to(self.bench.root).as_posix()])
            share = f"{fraction:g}" + (f"_lr_x{mult:g}" if mult != 1 else "")
            name = f"{share}_from_{origin}"
            folder = Path("hop") / plan.members[index]["name"] / name / f"seed_{seed}"
            stage = plan.member(index, mult * rates[index], plan.iters_of(fraction))
            jobs.append(self.bench.chain(folder, [first, stage], seed))
        return jobs

    def _trained(self, jobs: Sequence[Job]) -> list[MemberResult]:
        """Run jobs, and return the last member of each."""
        raise_first(self.bench.run(jobs))
        results = [job.members()[-1] for job in jobs]
        costs = {job.folder: result.flops for job, result in zip(jobs, results, strict=True)}
        self.spent |= costs
        return results


def _mean_flops(results: Sequence[MemberResult]) -> float:
    return statistics.mean(result.flops for result in results)
