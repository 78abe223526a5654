"""Share arguments and errors among the benchmarks' command lines."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from compt.cli import parse_options
from compt.errors import ComptError
from measuring.family import read_family
from measuring.runs import Bench, OutOfTime, default_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all benchmarks have."""
    parser.add_argument(
        "--preset", default="smoke", help="of the family's file: smoke, cpu, long, gpu, ..."
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs/saving"),
        help="what a rerun goes on from",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        help="runs at a time; one a core by default",
    )
    parser.add_argument(
        "--minutes", type=float, default=0, help="stop after so long; the same command goes on"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys of the family",
    )
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="keep what every run came to in FILE, and go on from it on another machine",
    )


def repeating(arguments: Sequence[str]) -> str:
    """Return the command that measures the same anywhere.

    It does not say where runs are kept, nor how many are made at a time, nor what was known before.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--work-dir", "--workers", "--minutes", "--records"):
        parser.add_argument(name)
    return shlex.join(["python", *parser.parse_known_args(arguments)[1]])


def measured(arguments: argparse.Namespace, name: str, measure: Callable[[Bench], Any]) -> int:
    """Measure a family, and return the exit code.

    Where the time is over, or something goes wrong, that is printed.
    """
    if arguments.preset == "gpu" and not torch.cuda.is_available():
        print("The preset gpu needs a GPU, and there is none: nothing was measured.")
        return 0
    try:
        family = read_family(name, arguments.preset, parse_options(arguments.cfg_options))
        measure(
            Bench(
                family,
                arguments.work_dir,
                workers=arguments.workers,
                minutes=arguments.minutes,
                records=arguments.records,
            )
        )
    except OutOfTime:
        print(f"Stopped after {arguments.minutes:g} minutes; the same command goes on.")
    except ComptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
