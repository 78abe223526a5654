"""Measure one row, a family at one length of training."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from compt.planning.rule import LONGER
from compt.report.software import environment
from measuring.command import repeating
from measuring.controls import by_recipe, largest_for, padded, smallest_longer
from measuring.curves import skip_bound, worth
from measuring.elsewhere import gains, levels
from measuring.family import AS_PUBLISHED, CHOOSING, Recipe
from measuring.hops import Search, search
from measuring.job import Job
from measuring.rates import Sweep, sweep
from measuring.rule import MORE_SEEDS, SEEDS, gate, judge
from measuring.runs import Bench

SHORTER = 2
"""Halvings of the shortest row that curves begin at."""
RATE_EXPONENT = -0.25
"""How the best rate is expected to fall with the length, where the sweep of a row begins."""

Curves = Sequence[Mapping[int, float]]
"""Of every member, quality alone by length."""


@dataclass(frozen=True)
class Runs:
    """Every member of a row, by member and seed."""

    jobs: tuple[tuple[Job, ...], ...]

    def qualities(self, bench: Bench) -> list[list[float]]:
        """Return numbers that are to rise."""
        return [[bench.quality_of(job) for job in jobs] for jobs in self.jobs]

    def values(self, bench: Bench) -> list[list[float]]:
        """Return the held-out metric."""
        return [[bench.value_of(job) for job in jobs] for jobs in self.jobs]

    @property
    def flops(self) -> list[float]:
        """Of every member, the mean over the seeds."""
        return [statistics.mean(job.flops for job in jobs) for jobs in self.jobs]

    @property
    def seconds(self) -> list[float]:
        """The same in seconds."""
        return [statistics.mean(job.result.record.seconds for job in jobs) for jobs in self.jobs]


@dataclass
class Measured:
    """What a row was measured from."""

    chosen: Sweep
    alone: Runs
    longer: Sequence[Job]
    """Of the smallest member, trained longer."""
    recipe: Recipe | None = None
    """Of the chain, None where there is no family."""
    searched: Search | None = None
    """How the recipe was found, None where the family's file has it."""
    chain: Runs | None = None
    controls: dict[str, Any] = field(default_factory=dict)


class Rows:
    """The rows of a family, short to long, which share their runs."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.family = bench, bench.family
        self.sweeps: dict[int, Sweep] = {}
        self._measured: dict[int, Measured] = {}

    def measure(self, iters: int, *, searching: bool = False) -> dict[str, Any]:
        """Measure a row, and return it as JSON types.

        Args:
            iters: its length.
            searching: look for a chain even where the family's file has one.
        """
        bench, family = self.bench, self.family
        chosen, curves = self.alone_until(iters)
        bench.say(f"{iters} iterations: every member alone, {family.seeds[iters]} seeds")
        alone = self._alone(chosen, family.judging(iters))
        longer = smallest_longer(bench, iters, chosen.rates[0])
        measured = self._measured[iters] = Measured(chosen, alone, longer)
        if not self.row(iters)["gate"]["open"]:
            bench.say("  no family here: nothing is grown")
            return self.row(iters)
        bench.say("  budgets of the chain")
        recipe = None if searching else family.chains.get(iters)
        if recipe is None:
            spreads = [statistics.stdev(runs) for runs in alone.qualities(bench)]
            measured.searched = search(bench, chosen, curves, spreads)
            recipe = measured.searched.recipe
        measured.alone, chain = self._judged(chosen, recipe, alone)
        if not self.row(iters)["gate"]["open"]:
            bench.say("  no family here: more seeds close the gate")
            return self.row(iters)
        measured.recipe, measured.chain = recipe, chain
        measured.controls = self._controls(chosen, recipe, measured.alone, chain)
        return self.row(iters)

    def row(self, iters: int) -> dict[str, Any]:
        """Return a measured row as JSON types.

        Where longer rows have been measured since, curves of members alone have points beyond its
        length, in place of lines that are carried on.
        """
        measured = self._measured[iters]
        curves = self.curves(max(self.sweeps))
        qualities = map(self.bench.quality_of, measured.longer)
        curves[0].setdefault(LONGER * iters, statistics.mean(qualities))
        row = self._row(measured, curves)
        return row if measured.chain is None else row | self._chain(measured, curves)

    def alone_until(self, iters: int) -> tuple[Sweep, list[dict[int, float]]]:
        """Return members alone at a length, and the curve of each up to it."""
        for length in (length for length in self.family.lengths if length <= iters):
            self._sweep(length)
        return self.sweeps[iters], self.curves(iters)

    def _sweep(self, iters: int) -> None:
        """Find the rates of every member at a length, from those at the length before it."""
        if iters in self.sweeps:
            return
        starts = [member["lr"] for member in self.family.members]
        if self.sweeps:
            shorter = max(self.sweeps)
            falling = (iters / shorter) ** RATE_EXPONENT
            starts = [rate * falling for rate in self.sweeps[shorter].rates]
        self.bench.say(f"{iters} iterations: learning rates of every member alone")
        searching = self.family.sweeping
        self.sweeps[iters] = sweep(self.bench, iters, starts, searching=searching)

    def _alone(self, chosen: Sweep, seeds: Sequence[int]) -> Runs:
        """Return every member alone at its best rate."""
        jobs = tuple(
            tuple(self.bench.alone(i, chosen.iters, rate, seed) for seed in seeds)
            for i, rate in enumerate(chosen.rates)
        )
        self.bench.run([job for by_seed in reversed(jobs) for job in by_seed], diverging=False)
        return Runs(jobs)

    def curves(self, iters: int) -> list[dict[int, float]]:
        """Return the curve of every member; see :meth:`curve`."""
        jobs = [self._curve_jobs(index, iters, {}) for index in range(len(self.family.members))]
        self.bench.run([job for by_length in jobs for pair in by_length.values() for job in pair])
        return [self.curve(index, iters) for index in range(len(self.family.members))]

    def curve(self, index: int, iters: int, **keys: Any) -> dict[int, float]:
        """Return the quality of a member alone by length, on the choosing seeds.

        Below the shortest row there is no sweep, but its rates.

        Args:
            index: of the member.
            iters: the longest length.
            keys: of a config, which replace those that all runs share.
        """
        bench, jobs = self.bench, self._curve_jobs(index, iters, keys)
        bench.run([job for pair in jobs.values() for job in pair])
        return {
            length: statistics.mean(map(bench.quality_of, pair)) for length, pair in jobs.items()
        }

    def _curve_jobs(self, index: int, iters: int, keys: Mapping[str, Any]) -> dict[int, list[Job]]:
        swept = [length for length in self.sweeps if length <= iters]
        shortest = min(swept)
        below = [max(1, shortest >> halvings) for halvings in range(SHORTER, 0, -1)]
        rates = {
            length: self.sweeps[max(length, shortest)].rates[index] for length in (*below, *swept)
        }
        return {
            length: [self.bench.alone(index, length, rate, seed, **keys) for seed in CHOOSING]
            for length, rate in rates.items()
        }

    def _judged(self, chosen: Sweep, recipe: Recipe, alone: Runs) -> tuple[Runs, Runs]:
        """Train the chain on the judging seeds, and on more where they leave it open.

        Returns every member alone and in the chain, on the same seeds.
        """
        bench, seeds = self.bench, self.family.judging(chosen.iters)
        chain = self._chain_runs(chosen, recipe, seeds)
        verdicts = judge(alone.qualities(bench), chain.qualities(bench))
        is_wide = any(verdict.is_wide for verdict in verdicts)
        if not is_wide or not SEEDS <= len(seeds) < MORE_SEEDS:
            return alone, chain
        bench.say(f"  an interval is wider than its margin: {MORE_SEEDS} seeds")
        seeds = self.family.judging(chosen.iters, MORE_SEEDS)
        return self._alone(chosen, seeds), self._chain_runs(chosen, recipe, seeds)

    def _chain_runs(self, chosen: Sweep, recipe: Recipe, seeds: Sequence[int]) -> Runs:
        bench = self.bench
        bench.say(f"  the chain, {len(seeds)} seeds")
        lengths = [max(1, round(fraction * chosen.iters)) for fraction in recipe.fractions]
        rates = [rate * mult for rate, mult in zip(chosen.rates, recipe.lr_mults, strict=True)]
        jobs = [tuple(bench.source(0, lengths[0], rates[0], seed) for seed in seeds)]
        bench.run(jobs[0], diverging=False)
        for index in range(1, len(rates)):
            jobs.append(
                tuple(
                    bench.grown(
                        index, source, lengths[index], rates[index], seed, recipe.ways_of(index)
                    )
                    for source, seed in zip(jobs[-1], seeds, strict=True)
                )
            )
            bench.run(jobs[-1], diverging=False)
        return Runs(tuple(jobs))

    def _row(self, measured: Measured, curves: Curves) -> dict[str, Any]:
        """Return what a row says whether or not it is a family's."""
        chosen, alone, longer = measured.chosen, measured.alone, measured.longer
        bench, family, iters = self.bench, self.family, chosen.iters
        qualities, flops = alone.qualities(bench), alone.flops
        means = list(map(statistics.mean, qualities))
        names = [member["name"] for member in family.members]
        last = alone.jobs[-1][0].result
        return {
            "name": family.name,
            "command": repeating(sys.argv),
            "iters": iters,
            "length": family.units(iters),
            "unit": family.unit.name,
            "batch_size": family.base.get("train_dataloader", {}).get("batch_size"),
            "metric": bench.metric(last),
            "higher_is_better": bench.sign(last) > 0,
            "floor": family.floor,
            "seeds": len(alone.jobs[0]),
            "members": self._members(chosen, alone),
            "curves": [dict(sorted(curve.items())) for curve in curves],
            "smallest_longer": [bench.value_of(job) for job in longer],
            "gate": gate(qualities, list(map(bench.quality_of, longer))).to_json(),
            "pad_null": asdict(padded(names, flops, means, curves, iters)),
            "downward_bound": sum(flops) / flops[-1],
            "spent_on_sweep": chosen.flops,
            "environment": environment(),
        }

    def _members(self, chosen: Sweep, alone: Runs) -> list[dict[str, Any]]:
        """Return what a row says of every member alone."""
        values, flops, seconds = alone.values(self.bench), alone.flops, alone.seconds
        return [
            {
                "name": member["name"],
                "params": alone.jobs[i][0].result.record.params,
                "lr": chosen.rates[i],
                "sweep": {
                    f"{rate:.4g}": quality for rate, quality in sorted(chosen.qualities[i].items())
                },
                "alone": values[i],
                "alone_flops": flops[i],
                "alone_seconds": seconds[i],
            }
            for i, member in enumerate(self.family.members)
        ]

    def _chain(self, measured: Measured, curves: Curves) -> dict[str, Any]:
        """Return what a row says of its chain."""
        bench, chosen, alone = self.bench, measured.chosen, measured.alone
        recipe, searched, chain = measured.recipe, measured.searched, measured.chain
        assert recipe is not None and chain is not None
        qualities, grown = alone.qualities(bench), chain.qualities(bench)
        verdicts = judge(qualities, grown)
        as_good = all(verdict.as_good for verdict in verdicts)
        means, grown_means = (list(map(statistics.mean, runs)) for runs in (qualities, grown))
        skipped = [max(0.0, 1 - recipe.fractions[0])] + [
            min(1.0, worth(source, curve, chosen.iters, mean))
            for source, curve, mean in zip(grown_means[:-1], curves[1:], means[1:], strict=True)
        ]
        worths = [
            worth(quality, curve, chosen.iters, mean)
            for quality, curve, mean in zip(grown_means, curves, means, strict=True)
        ]
        equally_good = sum(cost * share for cost, share in zip(alone.flops, worths, strict=True))
        content = {
            **self.family.ways,
            **asdict(recipe),
            "search": asdict(searched) if searched else None,
            "chain": chain.values(bench),
            "chain_flops": chain.flops,
            "chain_seconds": chain.seconds,
            "verdicts": [verdict.to_json() for verdict in verdicts],
            "ratio": sum(alone.flops) / sum(chain.flops),
            "as_good": as_good,
            "in_order": as_good and all(verdict.in_order for verdict in verdicts),
            "ratio_seconds": sum(alone.seconds) / sum(chain.seconds),
            "worths": worths,
            "equal_quality": equally_good / sum(chain.flops),
            "only_the_largest": alone.flops[-1] / sum(chain.flops),
            "skipped": skipped,
            "skip_bound": skip_bound(alone.flops, skipped),
            "elsewhere": {
                "alone": [levels(bench, jobs) for jobs in alone.jobs],
                "chain": [gains(bench, *jobs) for jobs in zip(chain.jobs, alone.jobs, strict=True)],
            },
        }
        if as_good:
            names = [member["name"] for member in self.family.members]
            pads = padded(names, alone.flops, means, curves, chosen.iters, chain.flops)
            content["pad_null"] = asdict(pads)
        return content | measured.controls

    def _controls(self, chosen: Sweep, recipe: Recipe, alone: Runs, chain: Runs) -> dict[str, Any]:
        """Train what the chain is held against, and return what it comes to."""
        bench, iters, rates = self.bench, chosen.iters, chosen.rates
        largest = alone.flops[-1] / iters
        lengths = {
            "equal_compute": max(1, round(sum(chain.flops) / largest)),
            "equal_samples": max(1, round(sum(recipe.fractions) * iters)),
        }
        against = chain.qualities(bench)[-1]
        recipes = {
            name: [asdict(one) for one in by_recipe(bench, recipe, iters, rates, alone.jobs)]
            for name, recipe in self.family.recipes.items()
        }
        return {
            "published": recipes.pop(AS_PUBLISHED, []),
            "recipes": recipes,
            **{
                name: asdict(largest_for(bench, iters, rates[-1], against, length))
                for name, length in lengths.items()
            },
        }
