"""List the plug-ins."""

from __future__ import annotations

import argparse

from compt.cli.shared import add_json

HELP = "plug-ins by registry; imports nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the list command takes."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plug-ins."""
    from compt.registry.listing import list_command

    return list_command(arguments.json)
