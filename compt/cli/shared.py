"""Hold what several commands take, a config with changes to it, and output as JSON."""

from __future__ import annotations

import argparse
import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.errors import ConfigError
from compt.registry.arguments import shown

if TYPE_CHECKING:
    from compt.config import ChainConfig

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]B)?", re.IGNORECASE)


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


def add_shard_size(parser: argparse.ArgumentParser) -> None:
    """Add the size of files of weights."""
    parser.add_argument(
        "--shard-size",
        default="5GB",
        metavar="SIZE",
        help="largest file of weights, such as 500MB, where the library loads several "
        "(default: 5GB)",
    )


def num_bytes(text: str, argument: str = "--shard-size", example: str = "5GB or 500MB") -> int:
    """Return the bytes that a size such as '5GB' stands for.

    Args:
        text: the size.
        argument: what it stands behind.
        example: a size or two.

    Raises:
        ConfigError: it is no size.
    """
    match = SIZE.fullmatch(text.strip())
    number = 0 if match is None else int(float(match[1]) * UNITS[(match[2] or "").upper()])
    if not number:
        raise ConfigError(f"{argument} {text!r} is no size.", do=f"For example {example}.")
    return number


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


def parse_options(
    pairs: Sequence[str], argument: str = "--cfg-options", example: str = "chain.1.epochs=9"
) -> dict[str, Any]:
    """Return KEY=VALUE arguments as mmengine reads them.

    Args:
        pairs: as they stand on the command line.
        argument: what they stand behind.
        example: one pair.

    Raises:
        ConfigError: one is no pair, or has a value that cannot be read.
    """
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction)
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(
            f"{argument}: {bad[0]!r} is not KEY=VALUE.",
            do=f"For example {argument} {example}.",
        )
    options: dict[str, Any] = {}
    for pair in pairs:
        try:
            options |= parser.parse_args(["--options", pair]).options
        # Of brackets that are left open, and of a call with several arguments.
        except (AssertionError, RecursionError) as error:
            raise ConfigError(
                f"{argument}: the value of {pair!r} cannot be read.",
                do="Values are numbers, texts, True, False, None, [lists] and (tuples) of them. "
                "Set one key of a dict at a time: grower.type=clone grower.noise=0.5.",
            ) from error
    return options


@contextmanager
def importing() -> Iterator[None]:
    """Import, and do little else, without looking for garbage on the way.

    Libraries make a million objects that stay; to search them again and again takes a fifth of the
    time until they are imported.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load(name: str, options: Sequence[str]) -> ChainConfig:
    """Return the checked config of a path or name, with KEY=VALUE changes."""
    path = find_config(name)
    with importing():  # the libraries of all plug-ins that the config names
        from compt.config import load_config

        return load_config(path, parse_options(options))
