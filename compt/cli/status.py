"""Show what runs are doing."""

from __future__ import annotations

import argparse

HELP = "what a run is doing, from any shell or machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the status command takes."""
    parser.add_argument("work_dirs", nargs="+", metavar="WORK_DIR", help="folders of runs")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--watch", action="store_true", help="go on until all runs have ended")
    output.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments: argparse.Namespace) -> int:
    """Read the runs' files, and show what they say."""
    from compt.report.watch.status_view import status_command

    return status_command(arguments.work_dirs, as_json=arguments.json, watch=arguments.watch)
