"""Load what will be needed, and say whether it does."""

from __future__ import annotations

import argparse
import json

from compt.cli.shared import add_json, add_options, load

HELP = "try what a run of a config does before it trains; without one, load every plug-in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the check command takes."""
    parser.add_argument(
        "config",
        nargs="?",
        help="config whose plan, data, parts, first batch and growth are tried; "
        "without one all plug-ins are loaded",
    )
    add_options(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Try a config, or load all plug-ins, and print what came of it."""
    if arguments.config is not None:
        return _check_config(arguments)
    from compt.registry.listing import check_command

    return check_command(arguments.json)


def _check_config(arguments: argparse.Namespace) -> int:
    """Do what a run does before it trains, and print each step as it is done.

    Whatever is at fault ends it as it would end the run.
    """
    config = load(arguments.config, arguments.cfg_options)
    from compt.planning.planner import plan
    from compt.registry import LAYOUTS
    from compt.report.format import left_out_lines, quantity
    from compt.training.dry_run import dry_run
    from compt.training.preflight import preflight

    steps: dict[str, str] = {}

    def done(name: str, result: str) -> None:
        steps[name] = result
        if not arguments.json:
            print(f"ok: {name}: {result}", flush=True)

    planned = plan(config)
    names = ", ".join(stage.name for stage in planned.stages)
    warnings = list(planned.warnings)
    done("plan", f"{names}; {quantity(planned.flops, 'FLOP')}, {len(warnings)} warnings")
    with LAYOUTS.choosing(config.layouts):
        data = preflight(config, planned)
    notes = [*left_out_lines(data.left_out), *data.notes]
    counts = {split: facts.get("samples", 0) for split, facts in data.fingerprints.items()}
    done("data and parts", ", ".join(f"{count:,} in '{split}'" for split, count in counts.items()))
    for tried in dry_run(config, planned):
        done(tried.name, tried.result)
    if arguments.json:
        print(json.dumps({"ok": True, "steps": steps, "warnings": warnings, "notes": notes}))
        return 0
    for line in (*(f"note: {note}" for note in notes), *(f"warning: {w}" for w in warnings)):
        print(line)
    return 0
