"""The budgets of a chain, found on the choosing seeds: how long each member trains once it is
grown.
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
    """For every grown member, fraction -> gain over the member alone, or its source if that is
    better, on the worst choosing seed."""
    flops: float
    """Of the whole chain, mean of the choosing seeds; infinite where it was given up at the last of
    ``gains``, because more of that member would make it no cheaper than a chain that is known."""

    @property
    def missed(self) -> bool:
        """Whether a member is not as good at any fraction tried."""
        return any(max(gains.values(), default=-math.inf) < 0 for gains in self.gains)


def rank(search: Search) -> tuple[bool, float]:
    """The lower, the better: no member missed, then compute."""
    return search.missed, search.flops


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
        """What every member reaches alone, by choosing seed: a seed that is lucky for the chain is
        so for these too.
        """
        bench = self.bench
        jobs = [
            [bench.alone(i, rate, seed) for seed in bench.plan.choosing]
            for i, rate in enumerate(self.rates)
        ]
        raise_first(bench.run([job for several in reversed(jobs) for job in several]))
        return [list(map(bench.quality, self._trained(several))) for several in jobs]

    def search(self) -> list[Search]:
        """All chains that were tried.

        First one whose members train no longer than they need. Then, from the smallest on, longer
        by half each time, as long as that makes the whole chain cheaper: steps of a small member
        cost little, and save steps of larger ones. A chain is given up where it cannot become
        cheaper any more.
        """
        tried = [best := self._chain((1.0,) * len(self.rates), math.inf)]
        for index in range(len(self.rates) - 1):
            while best.longer[index] * STEP <= self.bench.plan.longest:
                longer = tuple(
                    factor * (STEP if i == index else 1) for i, factor in enumerate(best.longer)
                )
                tried.append(found := self._chain(longer, math.inf if best.missed else best.flops))
                if rank(found) > rank(best):
                    break
                best = found
        return tried

    def _chain(self, longer: tuple[float, ...], below: float) -> Search:
        """Every grown member at the smallest fraction that suffices, times its factor, for less
        than so many FLOPs.
        """
        jobs = [self._first(longer[0], seed) for seed in self.bench.plan.choosing]
        reports = self._trained(jobs)
        fractions, mults, gains = [longer[0]], [1.0], []
        total = statistics.mean(report.flops for report in reports)
        for index in range(1, len(self.rates)):
            before = [job.stages[-1] for job in jobs]
            cost = longer[index] * statistics.mean(run[index].flops for run in self.alone)
            grid = [
                fraction
                for fraction in self.bench.plan.fractions
                if total + fraction * cost < below
            ]
            found = self._least(index, grid, before, reports)
            gains.append({fraction: gain for fraction, (gain, _) in sorted(found.items())})
            enough = [fraction for fraction, (gain, _) in found.items() if gain >= 0]
            if not enough and len(grid) < len(self.bench.plan.fractions):
                self.bench.say("  given up: with more of it no cheaper")
                return Search(tuple(fractions), tuple(mults), longer, tuple(gains), math.inf)
            fraction = min(enough) if enough else max(grid)
            mult = found[fraction][1]
            fractions.append(longer[index] * fraction)
            mults.append(mult)
            jobs = self._grown(index, fractions[-1], mult, before)
            reports = self._trained(jobs)
            total += statistics.mean(report.flops for report in reports)
        chain = Search(tuple(fractions), tuple(mults), longer, tuple(gains), total)
        parts = " - ".join(f"{fraction:g}" for fraction in fractions)
        self.bench.say(f"  chain of {parts}: {total:.4g} FLOPs{', missed' if chain.missed else ''}")
        return chain

    def _least(
        self,
        index: int,
        grid: Sequence[float],
        before: Sequence[Path],
        sources: Sequence[MemberResult],
    ) -> dict[float, tuple[float, float]]:
        """Fraction of the grid -> gain and the factor of the learning rate, down to the smallest
        that suffices.

        From half of what is left of its curve alone, doubled until it is enough, then halving what
        is between; from the smallest where the sources are as good already.
        """
        metric = self.bench.plan.metric
        left = [
            fraction_left(source, run[index], metric) for source in sources for run in self.alone
        ]
        half = statistics.mean(left) / 2
        if statistics.mean(map(self.bench.quality, sources)) >= statistics.mean(self.goals[index]):
            half = 0.0
        at = next((i for i, fraction in enumerate(grid) if fraction >= half), len(grid) - 1)
        low, high = 0, len(grid)
        found: dict[float, tuple[float, float]] = {}
        mult = 1.0
        while low < high:
            gain, mult = found[grid[at]] = self._best(index, grid[at], mult, before, sources)
            low, high = (low, at) if gain >= 0 else (at + 1, high)
            at = min(2 * at + 1, high - 1) if high == len(grid) else (low + high) // 2
        return found

    def _best(
        self,
        index: int,
        fraction: float,
        mult: float,
        before: Sequence[Path],
        sources: Sequence[MemberResult],
    ) -> tuple[float, float]:
        """Gain and factor of the learning rate: the given one where that suffices, else the best
        around it.
        """
        mults = self.bench.plan.lr_mults
        at = mults.index(mult)
        gains = {at: self._gain(index, fraction, mult, before, sources)}
        for step in (1, -1):
            while gains[at] < 0 and 0 <= at + step < len(mults):
                if at + step not in gains:
                    gains[at + step] = self._gain(
                        index, fraction, mults[at + step], before, sources
                    )
                if gains[at + step] <= gains[at]:
                    break
                at += step
        return gains[at], mults[at]

    def _gain(
        self,
        index: int,
        fraction: float,
        mult: float,
        before: Sequence[Path],
        sources: Sequence[MemberResult],
    ) -> float:
        """How much better a grown member is than alone, and than its source, on the choosing seed
        where it is worst.
        """
        reports = self._trained(self._grown(index, fraction, mult, before))
        quality = self.bench.quality
        gain = min(
            quality(report) - max(goal, quality(source))
            for report, goal, source in zip(reports, self.goals[index], sources, strict=True)
        )
        self.bench.say(
            f"  {reports[0].name} after {fraction:g} of its budget at {mult:g} lr: {gain:+.4f}, at worst"
        )
        return gain

    def _first(self, longer: float, seed: int) -> Job:
        """The smallest member, longer than its budget alone."""
        if longer == 1:
            return self.bench.alone(0, self.rates[0], seed)
        plan = self.bench.plan
        folder = (
            Path("longer")
            / plan.members[0]["name"]
            / f"{longer:g}_lr_{self.rates[0]:g}"
            / f"seed_{seed}"
        )
        return self.bench.chain(folder, [plan.member(0, self.rates[0], plan.part(longer))], seed)

    def _grown(self, index: int, fraction: float, mult: float, before: Sequence[Path]) -> list[Job]:
        """A member grown from each of the sources, for a fraction of its budget."""
        plan, rates = self.bench.plan, self.rates
        jobs = []
        for source, seed in zip(before, plan.choosing, strict=True):
            first = {**plan.member(index - 1, rates[index - 1], 0), "init": str(source)}
            origin = digest([plan.ways, source.relative_to(self.bench.root).as_posix()])
            part = f"{fraction:g}" + (f"_lr_x{mult:g}" if mult != 1 else "")
            folder = (
                Path("hop") / plan.members[index]["name"] / f"{part}_from_{origin}" / f"seed_{seed}"
            )
            stage = plan.member(index, mult * rates[index], plan.part(fraction))
            jobs.append(self.bench.chain(folder, [first, stage], seed))
        return jobs

    def _trained(self, jobs: Sequence[Job]) -> list[MemberResult]:
        """The last member of each run."""
        raise_first(self.bench.run(jobs))
        reports = [job.members()[-1] for job in jobs]
        self.spent |= {job.folder: report.flops for job, report in zip(jobs, reports, strict=True)}
        return reports
