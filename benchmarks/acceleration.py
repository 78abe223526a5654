"""Measure whether a family is as good as a chain, and for what fraction of the compute.

``python benchmarks/acceleration.py causal_lm --family 3 --preset cpu --json lm.json`` trains, in
this order:

1. every member alone, from scratch, at learning rates a factor of two apart, until the best has a
   worse one on both sides (seed 0), then with the judging seeds: the baseline is tuned, at its full
   budget;
2. every larger member grown from the one before it, at fractions of that budget, to find the
   smallest at which it is as good as the member alone, and as the one it was grown from, on each of
   the choosing seeds: the chain's budgets, with other learning rates where they help (`lr_mults` of
   a preset). Then with smaller members trained longer than they need (`longest`), as long as that
   makes the chain cheaper. Skipped where the preset has a chain (`chains`), unless with `--search`;
3. the whole chain with the judging seeds, with nothing left to choose. These alone are reported.

A chain is charged all of its stages, teacher passes and learned growth; the family's ratio is
counted only if every member is as good as alone, and as the one before it. Interrupted, the same
command goes on: every run is a work folder of compt. PARADIGM is a file of ``benchmarks/families``,
or the path of one: a family of your own, with growers and paradigms from plug-ins.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measuring.baseline import best, raise_first, sweep
from measuring.budgets import Budgets, Search, rank
from measuring.command import add_arguments, measured
from measuring.family import SIZES, Recipe
from measuring.outcome import Choice, outcome
from measuring.runs import Bench, digest
from measuring.show import draw, table, write

from compt.report.results import MemberResult


def acceleration(bench: Bench, *, search: bool = False) -> dict[str, Any]:
    """Measure one family, and return the result.

    Args:
        bench: where to run.
        search: look for a chain even where the preset has one.
    """
    plan = bench.plan
    bench.say(f"{plan.name}: learning rates of every member alone, {plan.iters} iterations")
    sweeps = sweep(bench, range(len(plan.members)))
    rates = [best(qualities) for qualities in sweeps]
    swept = {
        job.folder: job
        for i, qualities in enumerate(sweeps)
        for job in (bench.alone(i, rate, 0) for rate in qualities)
    }
    alone = _train_alone(bench, rates)
    recipe = None if search else plan.recipe
    searches: list[Search] = []
    spent: dict[Path, float] = {}
    if recipe is None:
        bench.say(f"budgets of the grown members, seeds {list(plan.choosing)}")
        budgets = Budgets(bench, rates, alone)
        searches, spent = budgets.search(), budgets.spent
        recipe = min(searches, key=rank)
    chains = _train_chains(bench, rates, recipe)
    sign = bench.sign(alone[0][0])
    choice = Choice(
        sweeps=[{rate: sign * value for rate, value in values.items()} for values in sweeps],
        rates=rates,
        recipe=recipe,
        searches=searches,
        swept=sum(job.members()[0].flops for job in swept.values() if job.done),
        searched=sum(flops for folder, flops in spent.items() if folder not in swept),
    )
    return outcome(bench, choice, chains, alone)


def _train_alone(bench: Bench, rates: Sequence[float]) -> list[list[MemberResult]]:
    """Return every member alone at its learning rate, by judging seed."""
    seeds = bench.plan.judging
    bench.say(f"every member alone, seeds {list(seeds)}")
    jobs = [[bench.alone(i, rate, seed) for i, rate in enumerate(rates)] for seed in seeds]
    by_member = list(zip(*jobs, strict=True))
    largest_first = [job for runs in reversed(by_member) for job in runs]
    raise_first(bench.run(largest_first))
    return [[job.members()[0] for job in run] for run in jobs]


def _train_chains(
    bench: Bench, rates: Sequence[float], recipe: Recipe
) -> list[tuple[MemberResult, ...]]:
    """Return the members of the chain, by judging seed."""
    plan = bench.plan
    bench.say(f"the chain, seeds {list(plan.judging)}")
    stages = [
        plan.member(i, rate * mult, plan.iters_of(fraction))
        for i, (rate, fraction, mult) in enumerate(
            zip(rates, recipe.fractions, recipe.lr_mults, strict=True)
        )
    ]
    names = [digest([plan.ways, recipe.lr_mults]), *(f"{share:g}" for share in recipe.fractions)]
    folder = Path("chain") / "-".join(names)
    chains = [bench.chain(folder / f"seed_{seed}", stages, seed) for seed in plan.judging]
    raise_first(bench.run(chains))
    return [job.members() for job in chains]


def main() -> int:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paradigm", help="a file of benchmarks/families, or the path of one")
    parser.add_argument(
        "--family", type=int, choices=tuple(SIZES), default=3, help="number of members"
    )
    parser.add_argument(
        "--search", action="store_true", help="search for a chain even where the preset has one"
    )
    add_arguments(parser)
    arguments = parser.parse_args()
    measure = partial(acceleration, search=arguments.search)
    code, result = measured(arguments, arguments.paradigm, arguments.family, measure)
    if result is not None:
        if arguments.json:
            write(result, arguments.json)
            draw(result, arguments.json.with_suffix(".svg"))
        table(result)
    return code


if __name__ == "__main__":
    sys.exit(main())
