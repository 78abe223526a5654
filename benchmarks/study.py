"""What pays when a member is grown: growers, transfers and learning-rate rules at parts of the
budget alone.

``python benchmarks/study.py causal_lm --preset cpu --json study.json`` trains the two smallest
members of the family of three alone, at their best learning rates, then the second grown from the
first in every way that the family's file lists under ``study``, at 1/8, 1/4 and 1/2 of its budget,
on the choosing seeds of ``acceleration.py``.

``python benchmarks/study.py --write docs/study.md JSON ...`` writes the tables into a document,
between markers.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring.baseline import best, raise_first, sweep
from measuring.command import add_arguments, measured, repeating
from measuring.family import WAYS
from measuring.outcome import deviation
from measuring.runs import Bench, Job, digest
from measuring.show import put_between, write

from compt.errors import ComptError, ConfigError
from compt.report.format import plain_console
from compt.report.record import environment

FRACTIONS = (0.125, 0.25, 0.5)
NONE = {"type": "none"}


class Study:
    """One hop, grown in many ways."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.plan = bench, bench.plan
        if not self.plan.study:
            raise ConfigError(
                f"'{self.plan.name}' has no study.", do="List ways to grow under `study`."
            )

    def run(self) -> dict[str, Any]:
        """Measure every way, and return the result."""
        bench, plan = self.bench, self.plan
        sweeps = sweep(bench, (0, 1))
        rates = [best(found) for found in sweeps]
        alone = [[bench.alone(i, rates[i], seed) for i in (0, 1)] for seed in plan.choosing]
        raise_first(bench.run([job for jobs in alone for job in jobs]))
        source, target = (
            statistics.mean(bench.quality(j[i].members()[0]) for j in alone) for i in (0, 1)
        )
        bench.say(f"source {source:+.4f}, target alone {target:+.4f} (rising is better)")
        default = {
            "grower": plan.ways["grower"],
            "transfer": NONE,
            "grown": {},
            "fractions": FRACTIONS,
        }
        ways = [{**default, **way} for way in plan.study]
        jobs = {
            (i, fraction): [
                self._job(way, rates, fraction, *pair)
                for pair in zip(alone, plan.choosing, strict=True)
            ]
            for fraction in sorted(FRACTIONS)
            for i, way in enumerate(ways)
            if fraction in way["fractions"]
        }
        failed = bench.run([job for several in jobs.values() for job in several])
        raise_first(failed)
        cost = alone[0][1].members()[0].flops
        cells = [
            {
                **{key: way[key] for key in WAYS},
                "points": [
                    self._point(jobs[i, fraction], fraction, target, cost)
                    for fraction in FRACTIONS
                    if (i, fraction) in jobs
                ],
            }
            for i, way in enumerate(ways)
        ]
        first = alone[0][1].members()[0]
        return {
            "name": plan.name,
            "command": repeating(sys.argv),
            "hop": [member["name"] for member in plan.members[:2]],
            "iters": plan.iters,
            "rates": rates,
            "seeds": list(plan.choosing),
            "metric": plan.metric or first.main_metric,
            "higher_is_better": bench.sign(first) > 0,
            "source": [bench.figure(jobs[0].members()[0]) for jobs in alone],
            "target": [bench.figure(jobs[1].members()[0]) for jobs in alone],
            "cells": cells,
            "environment": environment(),
        }

    def _job(
        self,
        way: Mapping[str, Any],
        rates: Sequence[float],
        fraction: float,
        alone: Sequence[Job],
        seed: int,
    ) -> Job:
        """The target grown one way, from the source trained already unless its optimizer's state is
        taken over.
        """
        plan = self.plan
        carried = way["grown"].get("optimizer_state", False)
        first = plan.member(0, rates[0], plan.iters if carried else 0)
        if not carried:
            first["init"] = str(alone[0].stages[-1])
        keys = {
            key: way[key] for key in WAYS if way[key] is not None
        }  # {} too: the family's own rule is one of several
        folder = Path("study") / digest(keys) / f"{fraction:g}" / f"seed_{seed}"
        return self.bench.chain(
            folder, [first, plan.member(1, rates[1], plan.part(fraction))], seed, **keys
        )

    def _point(
        self, jobs: Sequence[Job], fraction: float, target: float, cost: float
    ) -> dict[str, Any]:
        members = [job.members()[1] for job in jobs]
        gains = [self.bench.quality(member) - target for member in members]
        return {
            "fraction": fraction,
            "figures": [self.bench.figure(member) for member in members],
            "gain": statistics.mean(gains),
            "deviation": deviation(gains),
            "flops": statistics.mean(member.flops for member in members) / cost,
            "seconds": statistics.mean(member.seconds for member in members),
        }


def text_of(config: Mapping[str, Any] | None) -> str:
    """A config in one line: its type, then what differs from the defaults."""
    if not config:
        return "as alone"
    given = ", ".join(
        f"{key}={text_of(value) if isinstance(value, Mapping) else value}"
        for key, value in config.items()
        if key != "type"
    )
    name = str(config.get("type", ""))
    return f"{name}({given})" if name and given else name or given


def markdown(found: Mapping[str, Any]) -> str:
    """The table of one study: gains over the target alone, and over the first way that has every
    fraction.
    """
    reference = next(cell for cell in found["cells"] if len(cell["points"]) == len(FRACTIONS))
    known = {point["fraction"]: point for point in reference["points"]}
    pairs = [("source", found["source"]), ("target alone, full budget", found["target"])]
    ends = "; ".join(
        f"{name} {' / '.join(f'{value:.4f}' for value in values)}" for name, values in pairs
    )
    lines = [
        f"`{' -> '.join(found['hop'])}`, {found['metric']}, seeds {' / '.join(map(str, found['seeds']))}: {ends}. "
        f"In brackets: gain over {text_of(reference['grower'])} with transfer {text_of(reference['transfer'])}, by "
        "seed, with its standard error.",
        "",
        "| grower | transfer | learning rate | "
        + " | ".join(f"{fraction:g}" for fraction in FRACTIONS)
        + " | FLOPs |",
        "|---|---|---|" + "---|" * (len(FRACTIONS) + 1),
    ]
    for cell in found["cells"]:
        points = {point["fraction"]: point for point in cell["points"]}
        gains = [_gain_text(points.get(f), known[f], found["higher_is_better"]) for f in FRACTIONS]
        extra = statistics.mean(point["flops"] / point["fraction"] for point in points.values())
        names = [text_of(cell["grower"]), text_of(cell["transfer"]), text_of(cell["grown"])]
        lines.append("| " + " | ".join([*names, *gains, f"{extra:.2f}x"]) + " |")
    return "\n".join(lines)


def _gain_text(
    point: Mapping[str, Any] | None, reference: Mapping[str, Any], higher_is_better: bool
) -> str:
    """A gain over alone, and over the reference with the standard error of the difference; '' where
    not measured.
    """
    if point is None:
        return ""
    if point is reference:
        return f"{point['gain']:+.4f}"
    sign = 1 if higher_is_better else -1
    gains = [sign * (a - b) for a, b in zip(point["figures"], reference["figures"], strict=True)]
    error = deviation(gains) / math.sqrt(len(gains))
    return f"{point['gain']:+.4f} ({statistics.mean(gains):+.4f} ± {error:.4f})"


def rewrite(document: Path, results: Sequence[Path]) -> None:
    """Put the tables of results into a document."""
    for path in results:
        found = json.loads(path.read_text())
        put_between(document, found["name"], f"{markdown(found)}\n\nRepeat: `{found['command']}`")


def main() -> int:
    """Measure, or write what was measured into a document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="+", help="a family, as of acceleration.py; with --write the results"
    )
    parser.add_argument(
        "--write", type=Path, metavar="DOCUMENT", help="document to put the results' tables into"
    )
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.write:
        try:
            rewrite(arguments.write, [Path(name) for name in arguments.names])
        except ComptError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0
    code, found = measured(arguments, arguments.names[0], 3, lambda bench: Study(bench).run())
    if found is not None:
        if arguments.json:
            write(found, arguments.json)
        plain_console().print(markdown(found), highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
