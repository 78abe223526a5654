"""Parse the command line, run its command, and turn errors into one message and an exit code."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from compt.cli import (
    check,
    eval as eval_,
    export,
    grow,
    init,
    list as list_,
    new_plugin,
    plan,
    report,
    status,
    train,
)
from compt.cli.completion import add_completion
from compt.cli.unheard import said_in_a_line
from compt.errors import ComptError, ConfigError
from compt.registry.arguments import shown
from compt.training.signals import Interruptible, exit_code
from compt.writing import FULL, refusal


class Command(Protocol):
    """A file of this package."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the command takes."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it, and return the exit code."""


COMMANDS: Mapping[str, Command] = {
    "init": init,
    "train": train,
    "plan": plan,
    "check": check,
    "grow": grow,
    "export": export,
    "eval": eval_,
    "status": status,
    "report": report,
    "list": list_,
    "new-plugin": new_plugin,
}
NAMES_AT_FAULT = frozenset(
    (
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ELOOP,
    )
)
"""What the system says of a path that cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code.

    0 when it is done, 1 if training or data failed, 2 for bad input, 130 and 143 where SIGINT
    (Ctrl-C) or SIGTERM has ended it.
    """
    with Interruptible() as signals, said_in_a_line():
        return _guarded(lambda: _parsed(arguments), signals)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run the train command without its name, as mim calls ``tools/train.py``."""

    def parsed() -> argparse.Namespace:
        parser = argparse.ArgumentParser(description="Train a chain of models, small to large.")
        train.add_arguments(parser)
        return parser.parse_args(arguments, argparse.Namespace(command="train"))

    with Interruptible() as signals, said_in_a_line():
        return _guarded(parsed, signals)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compt", description="Pre-train families of models, small to large."
    )
    add_completion(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP))
    return parser.parse_args(arguments)


def _guarded(parse: Callable[[], argparse.Namespace], signals: Interruptible) -> int:
    """Parse and run a command, with errors as one message on stderr."""
    try:
        arguments = parse()
        return COMMANDS[arguments.command].run(arguments)
    except ComptError as error:
        print(f"compt: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has seen enough of it
        return 1
    except KeyboardInterrupt:
        return _interrupted(signals.number or signal.SIGINT)
    except Exception as error:
        # A library that is interrupted while it is imported may raise an error of its own.
        if signals.number:
            return _interrupted(signals.number)
        refused = refusal(error)
        if refused is None or (refused.filename is None and refused.errno not in FULL):
            raise
        return _refused(refused)


def _refused(error: OSError) -> int:
    """Say which file the system refuses, as bad input where it is the name or a permission."""
    file = "" if error.filename is None else f": {shown(str(error.filename))}"
    print(f"compt: {error.strerror}{file}", file=sys.stderr)
    return ConfigError.exit_code if error.errno in NAMES_AT_FAULT else ComptError.exit_code


def _interrupted(number: int) -> int:
    name = signal.Signals(number).name
    more = "--resume goes on with a chain from what it has saved"
    print(f"compt: interrupted by {name}; {more}.", file=sys.stderr)
    return exit_code(number)
