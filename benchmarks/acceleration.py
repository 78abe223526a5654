"""Is a family as good when it is trained as a chain, and for what fraction of the compute?

``python benchmarks/acceleration.py causal_lm --family 3 --preset cpu --json lm.json`` trains, in this order:

1. every member alone, from scratch, at learning rates a factor of two apart, until the best has a worse one on both
   sides (seed 0), then with the judging seeds: the baseline is tuned, at its full budget;
2. every larger member grown from the one before it, at fractions of that budget, to find the smallest at which it is as
   good as the member alone (choosing seeds): the chain's budgets;
3. the whole chain with the judging seeds, with nothing left to choose. These alone are reported.

A chain is charged all of its stages, teacher passes and learned growth; the family's ratio is counted only if every
member is as good as alone, within the standard error of the difference. Interrupted, the same command goes on: every
run is a work folder of compt. PARADIGM is a file of ``benchmarks/families``, or the path of one: a family of your own,
with growers and paradigms from plug-ins.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.baseline import raise_first, sweep
from measuring.command import add_arguments, measured
from measuring.family import SIZES
from measuring.outcome import Choice, outcome
from measuring.runs import Bench, Job, digest
from measuring.show import draw, table, write

from compt.prediction import fraction_left


class Acceleration:
    """The measurement of one family."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.plan = bench, bench.plan
        self.flops = {"sweep": 0.0, "search": 0.0}

    def run(self) -> dict[str, Any]:
        """Measure everything, and return the result."""
        bench, plan = self.bench, self.plan
        bench.say(f"{plan.name}: learning rates of every member alone, {plan.iters} iterations")
        sweeps = sweep(bench, range(len(plan.members)))
        rates = [max(found, key=lambda rate, found=found: found[rate]) for found in sweeps]
        self.flops["sweep"] = sum(
            job.members()[0].flops
            for i, found in enumerate(sweeps)
            for job in (bench.alone(i, rate, 0) for rate in found)
            if job.done
        )
        bench.say(f"every member alone, seeds {list(plan.judging)}")
        alone = [[bench.alone(i, rate, seed) for i, rate in enumerate(rates)] for seed in plan.judging]
        bench.run([job for run in reversed(list(zip(*alone, strict=True))) for job in run])
        found = [[job.members()[0] for job in run] for run in alone]
        bench.say(f"budgets of the grown members, seeds {list(plan.choosing)}")
        fractions, searches = self.search(rates, found)
        bench.say(f"the chain, seeds {list(plan.judging)}")
        stages = [plan.member(i, rates[i], plan.part(fractions[i])) for i in range(len(rates))]
        label = "-".join([digest(plan.ways), *(f"{fraction:g}" for fraction in fractions)])
        chains = [bench.chain(Path("chain") / label / f"seed_{seed}", stages, seed) for seed in plan.judging]
        raise_first(bench.run(chains))
        sign = bench.sign(found[0][0])
        choice = Choice(
            [{rate: sign * value for rate, value in one.items()} for one in sweeps],
            rates,
            fractions,
            searches,
            self.flops,
        )
        return outcome(bench, choice, [job.members() for job in chains], found)

    def search(self, rates: Sequence[float], alone: Any) -> tuple[list[float], list[dict[float, float]]]:
        """The smallest fraction for each grown member at which it is as good as alone, the largest if none is.

        Begins at half of what is predicted, and goes up or down from there.
        """
        bench, plan = self.bench, self.plan
        first = [bench.alone(0, rates[0], seed) for seed in plan.choosing]
        raise_first(bench.run(first))
        before = [bench.weights(job) for job in first]
        fractions, searches = [1.0], []
        for index in range(1, len(rates)):
            goal = statistics.mean(bench.quality(run[index]) for run in alone)
            half = statistics.mean(fraction_left(run[index - 1], run[index], plan.metric) for run in alone) / 2
            at = next((i for i, f in enumerate(plan.fractions) if f >= half), len(plan.fractions) - 1)
            gains = {at: self._gain(index, rates, plan.fractions[at], before, goal)}
            while gains[at] >= 0 and at:
                at -= 1
                gains[at] = self._gain(index, rates, plan.fractions[at], before, goal)
            while gains[at] < 0 and at < len(plan.fractions) - 1:
                at += 1
                if at not in gains:
                    gains[at] = self._gain(index, rates, plan.fractions[at], before, goal)
            fractions.append(plan.fractions[at])
            searches.append({plan.fractions[i]: gain for i, gain in gains.items()})
            before = [bench.weights(job, 1) for job in self._grown(index, rates, plan.fractions[at], before)]
        return fractions, searches

    def _gain(self, index: int, rates: Sequence[float], fraction: float, before: Sequence[Path], goal: float) -> float:
        """How much better than the goal a grown member is after a fraction of its budget, on the choosing seeds."""
        members = [job.members()[1] for job in self._grown(index, rates, fraction, before)]
        self.flops["search"] += sum(member.flops for member in members)
        gain = statistics.mean(map(self.bench.quality, members)) - goal
        self.bench.say(f"  {members[0].name} after {fraction:g} of its budget: {gain:+.4f} against alone")
        return gain

    def _grown(self, index: int, rates: Sequence[float], fraction: float, before: Sequence[Path]) -> list[Job]:
        """The runs of a member grown for a fraction of its budget."""
        pairs = zip(before, self.plan.choosing, strict=True)
        jobs = [self.hop(index, rates, fraction, path, seed) for path, seed in pairs]
        raise_first(self.bench.run(jobs))
        return jobs

    def hop(self, index: int, rates: Sequence[float], fraction: float, source: Path, seed: int) -> Job:
        """A member grown from a finished one."""
        first = {**self.plan.member(index - 1, rates[index - 1], 0), "init": str(source)}
        chain = [first, self.plan.member(index, rates[index], self.plan.part(fraction))]
        origin = digest([self.plan.ways, source.relative_to(self.bench.root).as_posix()])
        folder = Path("hop") / self.plan.members[index]["name"] / f"{fraction:g}_from_{origin}" / f"seed_{seed}"
        return self.bench.chain(folder, chain, seed)


def main() -> int:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paradigm", help="a file of benchmarks/families, or the path of one")
    parser.add_argument("--family", type=int, choices=tuple(SIZES), default=3, help="number of members")
    add_arguments(parser)
    arguments = parser.parse_args()
    code, found = measured(arguments, arguments.paradigm, arguments.family, lambda bench: Acceleration(bench).run())
    if found is not None:
        if arguments.json:
            write(found, arguments.json)
            draw(found, arguments.json.with_suffix(".svg"))
        table(found)
    return code


if __name__ == "__main__":
    sys.exit(main())
