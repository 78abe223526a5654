"""Measure what one hop of a chain costs beside what its source is worth, in many ways of growing.

``python benchmarks/study.py lm --preset long --json study.json`` trains two neighbours of a family
alone, at their best learning rates, then the larger one grown from the smaller in every way that
the family's file lists under ``study``, for an eighth, a quarter and a half of the iterations that
it has alone, at every length of ``study_lengths``. :mod:`measuring.tax` says what is read from
that.
"""

from __future__ import annotations

import argparse
import sys

from measuring.command import add_arguments, measured
from measuring.runs import Bench
from measuring.show import write
from measuring.tables import study_table
from measuring.tax import Study

from compt.report.format import plain_console


def main() -> int:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", help="a file of benchmarks/families, or the path of one")
    parser.add_argument("--hop", type=int, default=1, help="index of the member that is grown")
    add_arguments(parser)
    arguments = parser.parse_args()

    def measure(bench: Bench) -> None:
        study, results = Study(bench, arguments.hop), []
        for iters in bench.family.study_lengths:
            results.append(study.measure(iters))
            plain_console().print(study_table(results[-1]), highlight=False, soft_wrap=True)
            if arguments.json:
                write(results, arguments.json)

    return measured(arguments, arguments.family, measure)


if __name__ == "__main__":
    sys.exit(main())
