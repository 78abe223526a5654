"""Load what will be needed, and say whether it does."""

from __future__ import annotations

import argparse

from compt.cli.shared import add_json

HELP = "load every plug-in and say ok or why not"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the check command takes."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load all plug-ins, and print what came of it."""
    from compt.registry.listing import check_command

    return check_command(arguments.json)
