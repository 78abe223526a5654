"""Design a chain, for ``compt plan --auto``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compt.cli import devices
from compt.cli.shared import importing
from compt.errors import ConfigError

if TYPE_CHECKING:
    from compt.config import ChainConfig
    from compt.planning.auto import AutoPlan
    from compt.planning.budget import PilotPlan
    from compt.report.pilots import Pilots

FLAGS = ("pilot_budget", "out", "force", "only_largest", "metric", "work_dir")
"""Arguments that mean something with --auto alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what designing takes."""
    parser.add_argument(
        "--auto",
        action="store_true",
        help="design the chain: choose members, budgets and rates from pilots, and say whether it "
        "pays",
    )
    parser.add_argument(
        "--pilot-budget",
        type=float,
        metavar="FRACTION",
        help="train the pilots too, for at most this part of the compute of all members alone",
    )
    parser.add_argument(
        "--work-dir", help="folder whose 'pilots' they go to (default: work_dirs/CONFIG_NAME)"
    )
    parser.add_argument("--metric", help="what members are compared by (default: their main one)")
    parser.add_argument(
        "--only-largest", action="store_true", help="the other members are not wanted themselves"
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="config of the chain, to be written")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")


def check_flags(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that do not go together."""
    fault = do = ""
    if arguments.auto:
        names = ("individual", "explain", *devices.FLAGS)
        others = [name for name in names if getattr(arguments, name)]
        if others:
            fault, do = f"--auto does not go with --{others[0]}.", "Leave one of them out."
        elif not arguments.pilot and arguments.pilot_budget is None:
            fault = "--auto needs pilots, and none are named."
            do = "--pilot WORK_DIR ... reads those that are there, --pilot-budget 0.1 trains them."
    else:
        unused = [name for name in FLAGS if getattr(arguments, name) not in (None, False)]
        if unused:
            flag = unused[0].replace("_", "-")
            fault, do = f"--{flag} is for designing a chain.", "Add --auto."
    if fault:
        raise ConfigError(fault, do=do)


def run_auto(arguments: argparse.Namespace, config: ChainConfig) -> int:
    """Train or read pilots, design, say what comes of it, and write the config."""
    with importing():
        from compt.planning.auto import check_family, design
        from compt.report.designed_config import check_out, write_designed
        from compt.report.pilots import read_pilots

    check_family(config)
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        check_out(out, force=arguments.force)
    folders = list(map(Path, arguments.pilot or ()))
    if arguments.pilot_budget is not None:
        folders += _train_pilots(arguments, config)
    pilots = read_pilots(folders, config, arguments.metric)
    wanted = [config.stages[-1].name] if arguments.only_largest else None
    auto = design(config, pilots.curves, pilot_flops=pilots.flops, wanted=wanted)
    if out is not None:
        write_designed(out, auto, pilots, Path(config.where).name)
    _print(arguments, auto, pilots)
    return 0


def _print(arguments: argparse.Namespace, auto: AutoPlan, pilots: Pilots) -> None:
    if arguments.json:
        content = {
            "metric": pilots.metric,
            **auto.forecast.to_dict(),
            "chain": auto.plan.to_dict(),
            "notes": pilots.notes(),
            "config": auto.content,
        }
        print(json.dumps(content, indent=1, default=str))
        return
    from compt.report.design_table import design_table, design_text
    from compt.report.format import plain_console

    console = plain_console()
    console.print(design_table(auto, pilots))
    whole_lines = not console.is_terminal
    console.print(design_text(auto, pilots), markup=False, soft_wrap=whole_lines)
    if arguments.out:
        console.print(f"written: {arguments.out}", markup=False, soft_wrap=whole_lines)


def _train_pilots(arguments: argparse.Namespace, config: ChainConfig) -> Sequence[Path]:
    """Train every member alone at each length, or go on with that, and return the folders."""
    from compt.chain import train
    from compt.planning.budget import pilot_plans
    from compt.report.progress import Silent
    from compt.report.watch.terminal import on_output

    pilots = pilot_plans(config, arguments.pilot_budget)
    print(_announced(pilots), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    root = Path(arguments.work_dir or config.folder) / "pilots"
    folders = []
    for pilot in pilots:
        with Silent() if arguments.json else on_output() as progress:
            folder = root / pilot.name
            begun = folder.is_dir()
            train(pilot.config, work_dir=folder, resume=begun, individual=True, progress=progress)
        folders.append(folder)
    return folders


def _announced(pilots: Sequence[PilotPlan]) -> str:
    from compt.report.format import quantity

    lengths = ", ".join(pilot.name for pilot in pilots)
    flops = sum(pilot.flops for pilot in pilots)
    share = flops / pilots[0].alone_flops
    return (
        f"pilots: every member alone for {lengths}: {quantity(flops, 'FLOP')}, {share:.1%} of all "
        "members alone"
    )
