"""Write a package with a plug-in."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a package with a plug-in of your own, tests included"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the new-plugin command takes."""
    from compt.scaffold import KINDS

    parser.add_argument("name", help="of the package, for example compt-mean-fill")
    parser.add_argument("--kind", required=True, choices=list(KINDS), help="what it adds")
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder to write (default: the package's name)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the package, and say how to go on."""
    from compt.scaffold import new_plugin, next_steps

    out = Path(arguments.out) if arguments.out else None
    folder = new_plugin(arguments.name, arguments.kind, out)
    print(next_steps(folder, arguments.kind))
    return 0
