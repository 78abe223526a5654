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
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare the runs in the terminal and in files."""
    from compt.report.build import report_command

    return report_command(arguments.work_dirs, json=arguments.json, out=arguments.out)
