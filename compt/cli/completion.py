"""Write what lets a shell complete commands and arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from compt.errors import ConfigError

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a shell whose completion is printed."""
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_Print,
        help="print what completes commands and arguments in a shell, and exit",
    )


class _Print(argparse.Action):
    """Prints the script of the parser that has it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            import shtab
        except ImportError as error:
            raise ConfigError(
                "Completion is written by shtab, which is not installed.",
                do='pip install "compt[completion]"',
            ) from error
        for action in _taking_text(parser):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, values))
        parser.exit()


def _taking_text(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of all commands that may be paths, as nothing else is said of them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _taking_text(command)
        elif action.choices is None and action.type is None and action.nargs != 0:
            yield action
