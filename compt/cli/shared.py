"""Hold what several commands take, a config with changes to it, and output as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.errors import ConfigError
from compt.registry.arguments import shown

if TYPE_CHECKING:
    from compt.config import ChainConfig


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add changes to the keys of a config."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys: chain.1.epochs=9",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def find_config(name: str) -> Path:
    """Return a config's path, given as one or as a name among those that compt ships."""
    path = Path(name)
    try:
        if path.exists():
            return path
        wanted = path if path.suffix else path.with_suffix(".py")
    except (OSError, ValueError) as error:  # a name too long, or none
        raise ConfigError(f"{shown(name)} is no path: {error}.", do="Check the path.") from error
    root = Path(__file__).parents[1]
    for folder in (root / ".mim" / "configs", root.parent / "configs"):  # as mim finds them
        for candidate in sorted(folder.rglob("*.py")):
            if candidate.parts[-len(wanted.parts) :] == wanted.parts:
                return candidate
    raise ConfigError(
        f"There is no config '{name}', neither here nor among those that compt ships.",
        do="Check the path.",
    )


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE arguments as mmengine reads them."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction)
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(
            f"--cfg-options: {bad[0]!r} is not KEY=VALUE.",
            do="For example --cfg-options chain.1.epochs=9.",
        )
    return parser.parse_args(["--options", *pairs]).options if pairs else {}


def load(name: str, options: Sequence[str]) -> ChainConfig:
    """Return the checked config of a path or name, with KEY=VALUE changes."""
    from compt.config import load_config

    return load_config(find_config(name), parse_options(options))
