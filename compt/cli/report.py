"""Report on runs."""

from __future__ import annotations

import argparse

from compt.cli.shared import add_json

HELP = "table, plots and a page of finished stages"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the report command takes."""
    parser.add_argument("work_dirs", nargs="+", metavar="WORK_DIR", help="folders of runs")
    parser.add_argument(
        "-o",
        "--out",
        help="folder for report.html, plots and report.json (default: the first work folder)",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="T",
        help="peak of each device in TFLOP/s, in the runs' number format, for the share of it that "
        "was reached (default: as its data sheet says, for the GPUs that `compt plan` knows)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare the runs in the terminal and in files."""
    from compt.report.build import report_command

    return report_command(
        arguments.work_dirs, json=arguments.json, out=arguments.out, tflops=arguments.tflops
    )
