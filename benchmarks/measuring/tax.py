"""Measure what a hop of a chain costs beside what its source is worth, in several ways of growing.

A grown member that ends with a quality is worth as many iterations as the member alone takes to
that quality. Its source's quality is worth some already. What its own iterations and its source's
worth add up to, less what it is worth, is what the hop costs: the restart's tax, here as a share of
the member's budget alone.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compt.errors import ConfigError
from compt.report.software import environment
from measuring.command import repeating
from measuring.curves import length_to
from measuring.family import CHOOSING, WAYS
from measuring.job import Job
from measuring.rates import Sweep
from measuring.row import Rows
from measuring.rule import standard_error
from measuring.runs import Bench
from measuring.show import text_of

FRACTIONS = (0.125, 0.25, 0.5)
"""Of its budget alone, for which the member is grown, where a way does not say."""
SEEDS = (*CHOOSING, 103)
"""On which members are measured alone as well."""


@dataclass(frozen=True)
class Point:
    """A hop, grown one way for one share of the budget."""

    fraction: float
    qualities: tuple[float, ...]
    """By seed."""
    gain: float
    """Mean quality less that of the member alone at its whole budget."""
    worth: float
    """Mean share of its budget that the member alone takes to as good a result."""
    tax: float
    """Mean share of the budget that the hop costs."""
    tax_error: float
    """Its standard error, from the seeds."""
    flops: float
    """By those of the member alone at its whole budget."""


@dataclass(frozen=True)
class Alone:
    """The two members of a hop alone, on the study's seeds."""

    source: tuple[float, ...]
    """Quality of the smaller one, by seed."""
    target: tuple[float, ...]
    """Quality of the larger one, by seed."""
    curve: Mapping[int, float]
    """Quality of the larger one by length, on the choosing seeds."""
    flops: float
    """Of the larger one."""


class Study:
    """One hop of a family.

    Args:
        bench: where to run.
        hop: index of its target.

    Raises:
        ConfigError: the family has no such hop, or no ways to grow it.
    """

    def __init__(self, bench: Bench, hop: int) -> None:
        self.bench, self.family, self.hop = bench, bench.family, hop
        if not self.family.study:
            raise ConfigError(
                f"'{self.family.name}' has no study.", do="List ways to grow under `study`."
            )
        if not 0 < hop < len(self.family.members):
            raise ConfigError(
                f"There is no hop {hop}.", do=f"One of 1 to {len(self.family.members) - 1}."
            )
        self.rows = Rows(bench)

    def measure(self, iters: int) -> dict[str, Any]:
        """Measure every way at one length, and return it as JSON types."""
        bench, family = self.bench, self.family
        chosen, _ = self.rows.alone_until(iters)
        alone = self._alone(chosen, {})
        names = [member["name"] for member in family.members[self.hop - 1 : self.hop + 1]]
        start, goal = statistics.mean(alone.source), statistics.mean(alone.target)
        bench.say(f"{' -> '.join(names)}, {iters} iterations: {start:+.4f}, {goal:+.4f}")
        return {
            "name": family.name,
            "command": repeating(sys.argv),
            "hop": names,
            "iters": iters,
            "length": family.units(iters),
            "unit": family.unit.name,
            "seeds": len(SEEDS),
            "metric": bench.metric(self._jobs(chosen, self.hop, {})[0].result),
            "source": start,
            "target": goal,
            "worth_of_source": length_to(start, alone.curve) / iters,
            "curve": {str(length): quality for length, quality in alone.curve.items()},
            "ways": [self._way(way, chosen) for way in family.study],
            "environment": environment(),
        }

    def _alone(self, chosen: Sweep, keys: Mapping[str, Any]) -> Alone:
        """Train both members alone, with keys that hold for members alone as well."""
        bench = self.bench
        source, target = (self._jobs(chosen, index, keys) for index in (self.hop - 1, self.hop))
        bench.run([*source, *target], diverging=False)
        return Alone(
            source=tuple(map(bench.quality_of, source)),
            target=tuple(map(bench.quality_of, target)),
            curve=self.rows.curve(self.hop, chosen.iters, **keys),
            flops=statistics.mean(job.flops for job in target),
        )

    def _jobs(self, chosen: Sweep, index: int, keys: Mapping[str, Any]) -> list[Job]:
        rate = chosen.rates[index]
        return [self.bench.alone(index, chosen.iters, rate, seed, **keys) for seed in SEEDS]

    def _way(self, way: Mapping[str, Any], chosen: Sweep) -> dict[str, Any]:
        """Measure one way at all its fractions; one at which a run diverges has no point.

        Keys of a way that say how all members are trained, such as ``average``, hold for the
        members alone that it is compared with.
        """
        shared = {key: value for key, value in way.items() if key not in (*WAYS, "fractions")}
        alone = self._alone(chosen, shared)
        options = {key: value for key, value in way.items() if key != "fractions"}
        points = []
        for fraction in way.get("fractions", FRACTIONS):
            jobs = self._grown({**self.family.ways, **options}, chosen, fraction)
            if any(job.diverged for job in jobs):
                self.bench.say(f"  {text_of(options)}: {fraction:g} of the budget diverged")
            else:
                points.append(self._point(jobs, fraction, chosen.iters, alone))
        taxes = ", ".join(f"{point.fraction:g}: {point.tax:.3f}" for point in points)
        self.bench.say(f"  {text_of(options)}: {taxes}")
        return {"way": options, "points": [asdict(point) for point in points]}

    def _grown(self, ways: Mapping[str, Any], chosen: Sweep, fraction: float) -> list[Job]:
        """Grow the target for a share of its budget, and return its runs."""
        bench, hop = self.bench, self.hop
        rates, length = chosen.rates, max(1, round(fraction * chosen.iters))
        sources = [
            bench.source(hop - 1, chosen.iters, rates[hop - 1], seed, ways) for seed in SEEDS
        ]
        bench.run(sources, diverging=False)
        jobs = [
            bench.grown(hop, source, length, rates[hop], seed, ways)
            for source, seed in zip(sources, SEEDS, strict=True)
        ]
        bench.run(jobs)
        return jobs

    def _point(self, jobs: Sequence[Job], fraction: float, iters: int, alone: Alone) -> Point:
        """Return what runs of a share of the budget came to."""
        qualities = tuple(map(self.bench.quality_of, jobs))
        share = jobs[0].config["chain"][-1]["iters"] / iters
        worths = [length_to(quality, alone.curve) / iters for quality in qualities]
        starts = [length_to(quality, alone.curve) / iters for quality in alone.source]
        taxes = [start + share - worth for start, worth in zip(starts, worths, strict=True)]
        return Point(
            fraction=fraction,
            qualities=qualities,
            gain=statistics.mean(qualities) - statistics.mean(alone.target),
            worth=statistics.mean(worths),
            tax=statistics.mean(taxes),
            tax_error=standard_error(taxes),
            flops=statistics.mean(job.flops for job in jobs) / alone.flops,
        )
