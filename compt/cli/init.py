"""Write a config that fits one's data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compt.cli.shared import importing
from compt.errors import ConfigError

if TYPE_CHECKING:
    from compt.scaffold.configs.writing import Prepared, Wish, Written

HELP = "look at your data, and write a config that plans and trains as it is"
PARADIGMS = ("clip", "mae", "causal_lm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the init command takes."""
    parser.add_argument(
        "--paradigm", help=f"what to train: {', '.join(PARADIGMS)}, or a plug-in's name"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="file, folder or quoted pattern; icons and stdlib need none (default: one of these)",
    )
    parser.add_argument("--data-type", help="data source, where it is not to be guessed")
    parser.add_argument(
        "--sizes", help="tiny, small, base, or widths and layers: 64x3,128x4,256x6 (default: tiny)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, help="of the first member (default: by the data)")
    length.add_argument("--hours", type=float, help="of the whole chain, with --device")
    parser.add_argument("--device", help="GPU that --hours are of, such as H200 or RTX-4090")
    parser.add_argument("-o", "--out", metavar="FILE", help="config to write")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--yes", action="store_true", help="ask nothing, even on a terminal")


def run(arguments: argparse.Namespace) -> int:
    """Ask for what is left out, look at the data, write the config, and show its plan."""
    asking = sys.stdin.isatty() and sys.stdout.isatty() and not arguments.yes
    if asking:
        try:
            _ask(arguments)
        except EOFError as error:
            raise ConfigError("The questions were not answered.", do="Give flags.") from error
    for name, flag in (("paradigm", "--paradigm"), ("out", "-o")):
        if getattr(arguments, name) is None:
            raise ConfigError(
                f"{flag} is missing, and there is no terminal to ask on.",
                do="For example: compt init --paradigm clip --data images -o chain.py",
            )
    with importing():
        from compt.report.format import plain_console
        from compt.scaffold.configs.writing import check, prepare, undone_on_error, write

    wish = _wish(arguments)
    check(wish)
    console = plain_console()
    whole_lines = not console.is_terminal
    with undone_on_error(wish):
        prepared = prepare(wish)
        console.print(_seen(prepared), markup=False, soft_wrap=whole_lines)
        written = write(wish, prepared)
    console.print(_written(written), markup=False, soft_wrap=whole_lines)
    return 0


def _ask(arguments: argparse.Namespace) -> None:
    """Fill in what the command line leaves out."""
    from rich.prompt import Prompt

    if arguments.paradigm is None:
        arguments.paradigm = Prompt.ask("Paradigm", choices=[*PARADIGMS], default=PARADIGMS[0])
    if arguments.data is None:
        example = "stdlib" if arguments.paradigm == "causal_lm" else "icons"
        arguments.data = Prompt.ask("Data: file, folder, pattern or source", default=example)
    if arguments.sizes is None:
        arguments.sizes = Prompt.ask("Sizes: tiny, small, base or 64x3,128x4", default="tiny")
    if arguments.epochs is None and arguments.hours is None:
        answer = Prompt.ask("Epochs of the first member", default="by the data")
        arguments.epochs = None if answer == "by the data" else _number(answer)
    if arguments.out is None:
        arguments.out = Prompt.ask("Config to write", default="chain.py")


def _number(answer: str) -> float:
    try:
        return float(answer)
    except ValueError as error:
        raise ConfigError(f"'{answer}' is no number of epochs.") from error


def _wish(arguments: argparse.Namespace) -> Wish:
    from compt.planning.devices import MFU, device
    from compt.scaffold.configs.writing import Wish

    flops = None
    if arguments.hours is not None:
        if arguments.device is None:
            raise ConfigError(
                "--hours are of a GPU, and none is named.",
                do="Add --device, such as --device RTX-4090, or give --epochs.",
            )
        if not arguments.hours > 0:
            raise ConfigError(f"--hours {arguments.hours:g} is not above 0.")
        flops = 3600 * arguments.hours * MFU * device(arguments.device).flops(is_half=False)
    return Wish(
        paradigm=arguments.paradigm,
        file=Path(arguments.out),
        data=arguments.data,
        data_type=arguments.data_type,
        sizes=arguments.sizes,
        epochs=arguments.epochs,
        flops=flops,
        force=arguments.force,
    )


def _seen(prepared: Prepared) -> str:
    return "\n".join([*prepared.notes, *(f"  {fact}" for fact in prepared.look.facts)])


def _written(written: Written) -> str:
    """Say what was written, what it would cost, and how to go on."""
    from compt.report.plan_table import plan_text

    config, *others = written.files
    lines = [f"written: {config}", *(f"samples to look at: {path}" for path in others)]
    if written.plan is None:
        lines.append(
            f"It is a frame to fill in: init fits {', '.join(PARADIGMS)}. Its own documentation "
            "says what models the paradigm takes."
        )
        return "\n".join(lines)
    lines += [plan_text(written.plan).split("\n")[0], "next:"]
    lines += [f"  compt {command} {config}" for command in ("plan", "check", "train")]
    return "\n".join(lines)
