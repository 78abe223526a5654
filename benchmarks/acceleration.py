"""Is a family as good when it is trained as a chain, and for what fraction of the compute?

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
from functools import partial
from pathlib import Path
from typing import Any

from measuring.baseline import best, raise_first, sweep
from measuring.budgets import Budgets, Search, rank
from measuring.command import add_arguments, measured
from measuring.family import SIZES
from measuring.outcome import Choice, outcome
from measuring.runs import Bench, digest
from measuring.show import draw, table, write


def acceleration(bench: Bench, *, search: bool = False) -> dict[str, Any]:
    """Measure one family, and return the result; ``search`` for a chain even where the preset has
    one.
    """
    plan = bench.plan
    bench.say(f"{plan.name}: learning rates of every member alone, {plan.iters} iterations")
    sweeps = sweep(bench, range(len(plan.members)))
    rates = [best(found) for found in sweeps]
    swept = {
        job.folder: job
        for i, found in enumerate(sweeps)
        for job in (bench.alone(i, rate, 0) for rate in found)
    }
    bench.say(f"every member alone, seeds {list(plan.judging)}")
    jobs = [[bench.alone(i, rate, seed) for i, rate in enumerate(rates)] for seed in plan.judging]
    raise_first(bench.run([job for run in reversed(list(zip(*jobs, strict=True))) for job in run]))
    alone = [[job.members()[0] for job in run] for run in jobs]
    recipe = None if search else plan.recipe
    searches: list[Search] = []
    spent: dict[Path, float] = {}
    if recipe is None:
        bench.say(f"budgets of the grown members, seeds {list(plan.choosing)}")
        budgets = Budgets(bench, rates, alone)
        searches, spent = budgets.search(), budgets.spent
        recipe = min(searches, key=rank)
    bench.say(f"the chain, seeds {list(plan.judging)}")
    parts = list(zip(rates, recipe.fractions, recipe.lr_mults, strict=True))
    stages = [
        plan.member(i, rate * mult, plan.part(part)) for i, (rate, part, mult) in enumerate(parts)
    ]
    label = "-".join(
        [digest([plan.ways, recipe.lr_mults]), *(f"{fraction:g}" for fraction in recipe.fractions)]
    )
    chains = [
        bench.chain(Path("chain") / label / f"seed_{seed}", stages, seed) for seed in plan.judging
    ]
    raise_first(bench.run(chains))
    sign = bench.sign(alone[0][0])
    choice = Choice(
        [{rate: sign * value for rate, value in one.items()} for one in sweeps],
        rates,
        recipe,
        searches,
        sum(job.members()[0].flops for job in swept.values() if job.done),
        sum(flops for folder, flops in spent.items() if folder not in swept),
    )
    return outcome(bench, choice, [job.members() for job in chains], alone)


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
    code, found = measured(arguments, arguments.paradigm, arguments.family, measure)
    if found is not None:
        if arguments.json:
            write(found, arguments.json)
            draw(found, arguments.json.with_suffix(".svg"))
        table(found)
    return code


if __name__ == "__main__":
    sys.exit(main())
