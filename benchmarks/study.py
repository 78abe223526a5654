"""Measure which growers, transfers and rules for learning rates pay when a member is grown.

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
        rates = [best(qualities) for qualities in sweep(bench, (0, 1))]
        alone = [[bench.alone(i, rates[i], seed) for i in (0, 1)] for seed in plan.choosing]
        raise_first(bench.run([job for jobs in alone for job in jobs]))
        source, target = (
            statistics.mean(bench.quality(jobs[i].members()[0]) for jobs in alone) for i in (0, 1)
        )
        bench.say(f"source {source:+.4f}, target alone {target:+.4f} (rising is better)")
        first = alone[0][1].members()[0]
        return {
            "name": plan.name,
            "command": repeating(sys.argv),
            "hop": [member["name"] for member in plan.members[:2]],
            "iters": plan.iters,
            "rates": rates,
            "seeds": list(plan.choosing),
            "metric": bench.metric(first),
            "higher_is_better": bench.sign(first) > 0,
            "source": [bench.value(jobs[0].members()[0]) for jobs in alone],
            "target": [bench.value(jobs[1].members()[0]) for jobs in alone],
            "cells": self._cells(rates, alone, target, first.flops),
            "environment": environment(),
        }

    def _cells(
        self, rates: Sequence[float], alone: Sequence[Sequence[Job]], target: float, cost: float
    ) -> list[dict[str, Any]]:
        """Grow the target in every way, and return what each came to.

        ``target`` is its quality alone, and ``cost`` its FLOPs.
        """
        default = {
            "grower": self.plan.ways["grower"],
            "transfer": NONE,
            "grown": {},
            "fractions": FRACTIONS,
        }
        ways = [{**default, **way} for way in self.plan.study]
        jobs = {
            (i, fraction): [
                self._job(way, rates, fraction, *pair)
                for pair in zip(alone, self.plan.choosing, strict=True)
            ]
            for fraction in sorted(FRACTIONS)
            for i, way in enumerate(ways)
            if fraction in way["fractions"]
        }
        raise_first(self.bench.run([job for by_seed in jobs.values() for job in by_seed]))
        return [
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

    def _job(
        self,
        way: Mapping[str, Any],
        rates: Sequence[float],
        fraction: float,
        alone: Sequence[Job],
        seed: int,
    ) -> Job:
        """Return the run of the target grown one way.

        From the source that is trained already, unless its optimizer's state is taken over.
        """
        plan = self.plan
        carried = way["grown"].get("optimizer_state", False)
        first = plan.member(0, rates[0], plan.iters if carried else 0)
        if not carried:
            first["init"] = str(alone[0].stages[-1])
        # An empty one is passed on too: to have no rule is one of the ways, and the family's own
        # would take its place.
        keys = {key: way[key] for key in WAYS if way[key] is not None}
        folder = Path("study") / digest(keys) / f"{fraction:g}" / f"seed_{seed}"
        second = plan.member(1, rates[1], plan.iters_of(fraction))
        return self.bench.chain(folder, [first, second], seed, **keys)

    def _point(
        self, jobs: Sequence[Job], fraction: float, target: float, cost: float
    ) -> dict[str, Any]:
        members = [job.members()[1] for job in jobs]
        gains = [self.bench.quality(member) - target for member in members]
        return {
            "fraction": fraction,
            "figures": [self.bench.value(member) for member in members],
            "gain": statistics.mean(gains),
            "deviation": deviation(gains),
            "flops": statistics.mean(member.flops for member in members) / cost,
            "seconds": statistics.mean(member.record.seconds for member in members),
        }


def text_of(config: Mapping[str, Any] | None) -> str:
    """Write a config in one line, as its type and what differs from the defaults."""
    if not config:
        return "as alone"
    options = ", ".join(
        f"{key}={text_of(value) if isinstance(value, Mapping) else value}"
        for key, value in config.items()
        if key != "type"
    )
    name = str(config.get("type", ""))
    return f"{name}({options})" if name and options else name or options


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table of one study.

    It has gains over the target alone, and over the first way that has every fraction.
    """
    reference = next(cell for cell in result["cells"] if len(cell["points"]) == len(FRACTIONS))
    header = " | ".join(f"{fraction:g}" for fraction in FRACTIONS)
    lines = [
        _caption(result, reference),
        "",
        f"| grower | transfer | learning rate | {header} | FLOPs |",
        "|---|---|---|" + "---|" * (len(FRACTIONS) + 1),
    ]
    return "\n".join([*lines, *(_row(result, cell, reference) for cell in result["cells"])])


def _caption(result: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    pairs = [("source", result["source"]), ("target alone, full budget", result["target"])]
    ends = "; ".join(
        f"{name} {' / '.join(f'{value:.4f}' for value in values)}" for name, values in pairs
    )
    hop, seeds = " -> ".join(result["hop"]), " / ".join(map(str, result["seeds"]))
    return (
        f"`{hop}`, {result['metric']}, seeds {seeds}: {ends}. "
        f"In brackets: gain over {text_of(reference['grower'])} with transfer "
        f"{text_of(reference['transfer'])}, by seed, with its standard error."
    )


def _row(result: Mapping[str, Any], cell: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    points, known = (
        {point["fraction"]: point for point in way["points"]} for way in (cell, reference)
    )
    rising = result["higher_is_better"]
    gains = [_gain_text(points.get(share), known[share], rising) for share in FRACTIONS]
    extra = statistics.mean(point["flops"] / point["fraction"] for point in points.values())
    names = [text_of(cell[key]) for key in ("grower", "transfer", "grown")]
    return f"| {' | '.join([*names, *gains, f'{extra:.2f}x'])} |"


def _gain_text(
    point: Mapping[str, Any] | None, reference: Mapping[str, Any], higher_is_better: bool
) -> str:
    """Write a gain over alone, and over the reference, '' where it was not measured.

    The latter has the standard error of the difference.
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
        result = json.loads(path.read_text())
        text = f"{markdown(result)}\n\nRepeat: `{result['command']}`"
        put_between(document, result["name"], text)


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
    code, result = measured(arguments, arguments.names[0], 3, lambda bench: Study(bench).run())
    if result is not None:
        if arguments.json:
            write(result, arguments.json)
        plain_console().print(markdown(result), highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
