"""Show what a chain would cost."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from compt.cli.shared import add_json, add_options, load

HELP = "show sizes and compute of a chain; trains nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the plan command takes."""
    parser.add_argument("config")
    parser.add_argument("--individual", action="store_true", help="plan every member alone")
    parser.add_argument(
        "--pilot",
        nargs="+",
        metavar="WORK_DIR",
        help="predict the chain's budgets from runs of --individual, one a seed",
    )
    add_options(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, with a prediction where pilot runs are given."""
    config = load(arguments.config, arguments.cfg_options)
    from compt.planning.planner import plan

    result = plan(config, individual=arguments.individual)
    prediction = None
    if arguments.pilot:
        from compt.report.prediction import predict, read_pilots

        prediction = predict(read_pilots(list(map(Path, arguments.pilot))))
    if arguments.json:
        extra = {} if prediction is None else {"prediction": asdict(prediction)}
        print(json.dumps({**result.to_dict(), **extra}, indent=1))
        return 0
    from compt.report.format import plain_console
    from compt.report.plan_table import plan_table, plan_text, prediction_text

    console = plain_console()
    console.print(plan_table(result))
    console.print(plan_text(result))
    if prediction is not None:
        console.print(prediction_text(prediction))
    return 0
