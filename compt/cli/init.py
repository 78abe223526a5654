"""Write a config that fits one's data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compt.cli.shared import importing
from compt.errors import ConfigError, visible
from compt.writing import atomic

if TYPE_CHECKING:
    from compt.interfaces import Paradigm
    from compt.scaffold.configs.writing import Prepared, Wish, Written

HELP = "look at your data, and write a config that plans and trains as it is"
CLUSTERS = ("slurm", "kubernetes", "skypilot")
BY_THE_DATA = "by the data"
"""The answer that leaves the epochs to what is seen of the data."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the init command takes."""
    parser.add_argument(
        "--paradigm", help="what to train: a paradigm that compt list names, such as clip"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="file, folder or quoted pattern, or a data source that needs none, such as icons "
        "(default: one that fits the paradigm)",
    )
    parser.add_argument("--data-type", help="data source, where it is not to be guessed")
    parser.add_argument(
        "--sizes",
        help="a preset of the paradigm, such as tiny, small or base, or widths and layers: "
        "64x3,128x4,256x6 (default: its first)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, help="of the first member (default: by the data)")
    length.add_argument("--hours", type=float, help="of the whole chain, with --device")
    parser.add_argument("--device", help="GPU that --hours are of, such as H200 or RTX-4090")
    parser.add_argument(
        "--cluster",
        choices=CLUSTERS,
        help="write a job that trains a chain there, and goes on with it, in place of a config",
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="config, or job, to write")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--yes", action="store_true", help="ask nothing, even on a terminal")


def run(arguments: argparse.Namespace) -> int:
    """Ask for what is left out, look at the data, write the config, and show its plan."""
    if arguments.cluster is not None:
        return _write_job(arguments)
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
                do="For example: compt init --paradigm NAME --data images -o chain.py",
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
    console.print(_written(written, arguments), markup=False, soft_wrap=whole_lines)
    return 0


def _write_job(arguments: argparse.Namespace) -> int:
    """Write the job for a cluster, or print it."""
    from compt.scaffold.clusters import template

    text = template(arguments.cluster)
    flags = ("paradigm", "data", "data_type", "sizes", "epochs", "hours", "device")
    if unused := [flag for flag in flags if getattr(arguments, flag) is not None]:
        raise ConfigError(
            f"--{unused[0].replace('_', '-')} is for a config, and --cluster writes a job.",
            do="Leave it out here, and write the config by a call of its own.",
        )
    if arguments.out is None:
        print(text, end="")
        return 0
    file = Path(arguments.out)
    if file.exists() and not arguments.force:
        raise ConfigError(f"There is a file '{file}' already.", do="--force replaces it.")
    with atomic(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"written: {file}\nchange the lines that say so; docs/clusters.md explains them")
    return 0


def _ask(arguments: argparse.Namespace) -> None:
    """Fill in what the command line leaves out."""
    from rich.prompt import Prompt

    from compt.registry import PARADIGMS

    if arguments.paradigm is None:
        arguments.paradigm = Prompt.ask("Paradigm", choices=PARADIGMS.names())
    with importing():
        paradigm: type[Paradigm] = PARADIGMS.get(arguments.paradigm)
    starter = paradigm.starter
    if arguments.data is None:
        example, noun = (starter.example_data, f" ({starter.data_noun})") if starter else ("", "")
        question = f"Data{noun}: file, folder, pattern or source"
        arguments.data = Prompt.ask(question, default=example or None)
    if starter is not None:
        _ask_for_chain(arguments, list(starter.sizes))
    if arguments.out is None:
        arguments.out = Prompt.ask("Config to write", default="chain.py")


def _ask_for_chain(arguments: argparse.Namespace, presets: Sequence[str]) -> None:
    """Fill in sizes and length of a chain whose models are known."""
    from rich.prompt import Prompt

    if arguments.sizes is None:
        question = f"Sizes: {', '.join(presets)} or 64x3,128x4"
        arguments.sizes = Prompt.ask(question, default=presets[0])
    if arguments.epochs is None and arguments.hours is None:
        answer = Prompt.ask("Epochs of the first member", default=BY_THE_DATA)
        arguments.epochs = None if answer == BY_THE_DATA else _number(answer)


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
    return visible("\n".join([*prepared.notes, *(f"  {fact}" for fact in prepared.look.facts)]))


def _written(written: Written, arguments: argparse.Namespace) -> str:
    """Say what was written, what it would cost, and how to go on."""
    from compt.report.plan_table import plan_text

    config, *others = written.files
    lines = [f"written: {config}", *(f"samples to look at: {path}" for path in others)]
    if written.plan is None:
        lines.append(
            f"It is a frame to fill in: '{arguments.paradigm}' has no starter that says what "
            "models it takes. See its own documentation."
        )
        flags = ("sizes", "epochs", "hours")
        if unused := [f"--{flag}" for flag in flags if getattr(arguments, flag) is not None]:
            lines.append(f"not used: {', '.join(unused)}")
        return "\n".join(lines)
    lines += [plan_text(written.plan).split("\n")[0], "next:"]
    lines += [f"  compt {command} {config}" for command in ("plan", "check", "train")]
    return "\n".join(lines)
