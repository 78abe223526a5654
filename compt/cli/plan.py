"""Show what a chain would cost."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from compt.cli import auto, devices
from compt.cli.shared import add_json, add_options, importing, load

if TYPE_CHECKING:
    from compt.planning.estimate import Estimate
    from compt.planning.plans import ChainPlan
    from compt.report.prediction import Prediction

HELP = "show sizes and compute of a chain, or design it from short runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the plan command takes."""
    parser.add_argument("config", help="path of a config, or the name of one that compt ships")
    parser.add_argument("--individual", action="store_true", help="plan every member alone")
    parser.add_argument(
        "--pilot",
        nargs="+",
        metavar="WORK_DIR",
        help="predict the chain's budgets from runs of --individual, one a seed; with --auto "
        "design it from such runs, of any lengths",
    )
    auto.add_arguments(parser)
    parser.add_argument(
        "--explain", action="store_true", help="say what every number is, and how it comes about"
    )
    devices.add_arguments(parser)
    add_options(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, with a prediction where pilot runs are given."""
    auto.check_flags(arguments)
    device = devices.device_of(arguments)
    config = load(arguments.config, arguments.cfg_options)
    if arguments.auto:
        return auto.run_auto(arguments, config)
    with importing():
        from compt.planning.planner import plan

        result = plan(config, individual=arguments.individual, world_size=arguments.devices or 1)
    estimate = None
    if device is not None:
        estimate = devices.estimate_on(device, arguments, config, result)
    prediction = None
    if arguments.pilot:
        from compt.report.prediction import predict, read_pilots

        prediction = predict(read_pilots(list(map(Path, arguments.pilot))))
    if arguments.json:
        _print_json(arguments, result, estimate, prediction)
    else:
        _print_text(arguments, result, estimate, prediction)
    return 0


def _print_json(
    arguments: argparse.Namespace,
    plan: ChainPlan,
    estimate: Estimate | None,
    prediction: Prediction | None,
) -> None:
    from compt.planning.paying import doubts

    content = plan.to_dict()
    if prediction is not None:
        content["prediction"] = asdict(prediction)
    if arguments.explain:
        content["doubts"] = [asdict(doubt) for doubt in doubts(plan)]
    if estimate is not None:
        content["estimate"] = estimate.to_dict()
    print(json.dumps(content, indent=1))


def _print_text(
    arguments: argparse.Namespace,
    plan: ChainPlan,
    estimate: Estimate | None,
    prediction: Prediction | None,
) -> None:
    from compt.planning.paying import doubts
    from compt.report.device_table import device_table, device_text
    from compt.report.format import plain_console
    from compt.report.plan_explained import doubts_text, explained
    from compt.report.plan_table import plan_table, plan_text, prediction_text

    console = plain_console()

    def say(text: str) -> None:
        """Print sentences, wrapped at words on a terminal and whole elsewhere."""
        console.print(text, markup=False, soft_wrap=not console.is_terminal)

    console.print(plan_table(plan))
    say(plan_text(plan))
    if reasons := doubts(plan):
        say(doubts_text(reasons, with_reasons=arguments.explain))
    if prediction is not None:
        say(prediction_text(prediction))
    if estimate is not None:
        console.print(device_table(estimate))
        say(device_text(estimate))
    if arguments.explain:
        say(f"\n{explained(plan, min(console.width, 100))}")
