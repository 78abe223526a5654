"""Measure what a family saves as a chain, by a rule that was set before.

``python benchmarks/saving.py lm --preset cpu --json lm.json`` makes one row for every length of
training in the preset, short to long:

1. every member alone, at learning rates a factor of 1.4 apart until the best has a worse one on
   both sides, on two choosing seeds; then on the judging seeds: the baseline, tuned;
2. the gate: larger members are better, by three standard errors, and the smallest, trained eight
   times as long, does not reach the largest. Else there is no family, and the row ends here;
3. the least budget at which every grown member is as good as alone and in order, with its rate, on
   the choosing seeds;
4. the chain on the judging seeds, with nothing left to choose, and the controls.

Interrupted, the same command goes on: every run is a work folder of compt. FAMILY is a file of
``benchmarks/families``, or the path of one: a family of your own, with growers, paradigms and data
from plug-ins.
"""

from __future__ import annotations

import argparse
import sys

from measuring.command import add_arguments, measured
from measuring.row import Rows
from measuring.runs import Bench
from measuring.show import show_row, write


def main() -> int:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", help="a file of benchmarks/families, or the path of one")
    parser.add_argument(
        "--iters", type=int, help="the length of the one row to make; all of the preset by default"
    )
    parser.add_argument(
        "--search", action="store_true", help="search for a chain even where the file has one"
    )
    add_arguments(parser)
    arguments = parser.parse_args()

    def measure(bench: Bench) -> None:
        rows, lengths = Rows(bench), bench.family.row_lengths(arguments.iters)
        for count, iters in enumerate(lengths, start=1):
            show_row(rows.measure(iters, searching=arguments.search))
            if arguments.json:
                write([rows.row(length) for length in lengths[:count]], arguments.json)

    return measured(arguments, arguments.family, measure)


if __name__ == "__main__":
    sys.exit(main())
