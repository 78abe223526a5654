"""Turns what a config names into the paths of archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compt.errors import ConfigError


def expand(urls: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """Turn a path, a brace pattern or a list of these into paths.

    Raises:
        ConfigError: it names nothing, or something that is not a local file.
    """
    paths: list[Path] = []
    for url in (urls,) if isinstance(urls, str | Path) else urls:
        text = str(url)
        if "::" in text or "://" in text or text.startswith("pipe:"):
            raise ConfigError(
                f"'{text}' is not a local path.",
                where="webdataset",
                do="Fetch the shards first; give braces or a list.",
            )
        paths += [Path(path).expanduser() for path in (_braces(text) if "{" in text else [text])]
    if not paths:
        raise ConfigError("The list of shards is empty.", where="webdataset")
    return tuple(paths)


def _braces(pattern: str) -> list[str]:
    try:
        import braceexpand
    except ImportError as error:
        raise ConfigError(
            f"'{pattern}' needs the package braceexpand.", do="pip install braceexpand"
        ) from error
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(
            f"'{pattern}' is no brace pattern: {error}.", where="webdataset"
        ) from error
