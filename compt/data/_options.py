"""Tells the splits of a data config from the options of its source."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compt.errors import ConfigError, did_you_mean

Sorted = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]


def sort_options(
    cfg: Mapping[str, Any], sources: Mapping[str, type], common: Sequence[str] = ()
) -> Sorted:
    """Sort the keys of ``dict(type=..., ...)``.

    The options of a source are the keyword-only parameters of its class; what is none is a split
    and its files, unless the class has the attribute ``splits``, the names of those it always has.
    Its attribute ``takes`` says what a split is: 'files' if it has none, else one 'file' or one
    'folder'.

    Args:
        sources: the classes by type.
        common: options of every source.

    Returns:
        the type; split -> files (None where the class has ``splits``); its options; those of every
        source.

    Raises:
        ConfigError: unknown type or option, or a split whose files are no path or list of paths.
    """
    options = dict(cfg)
    kind = options.pop("type", None)
    if kind not in sources:
        what = (
            "The data has no type."
            if kind is None
            else f"No data named '{kind}'." + did_you_mean(kind, sources)
        )
        raise ConfigError(what, where="data", do=f"Available: {', '.join(sources)}.")
    source = sources[kind]
    parameters = inspect.signature(source).parameters.values()
    own = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    settings = {key: options.pop(key) for key in own if key in options}
    shared = {key: options.pop(key) for key in common if key in options}
    fixed: tuple[str, ...] | None = getattr(source, "splits", None)
    takes = getattr(source, "takes", "files")
    for key, value in options.items():
        near = did_you_mean(key, [*own, *common], cutoff=0.75)
        if fixed or near or not _is_files(value):
            rest = "." if fixed else f"; any other key is a split and its {takes}."
            raise ConfigError(
                f"Data of type '{kind}' has no option '{key}'.{near}",
                where=f"data.{key}",
                do=f"Options: {', '.join([*own, *common])}{rest}",
            )
        if takes != "files" and not isinstance(value, str | Path):
            raise ConfigError(
                f"A split of type '{kind}' is one {takes}, no list.",
                where=f"data.{key}",
                do=f"Make one {takes} of them.",
            )
    return kind, dict.fromkeys(fixed) if fixed else options, settings, shared


def files_of(split: str, kind: str, files: Mapping[str, Any]) -> Any:
    """What a config names for a split; ConfigError if that is nothing."""
    if split not in files:
        raise ConfigError(
            f"The data has no split '{split}'." + did_you_mean(split, files),
            where=f"data of type '{kind}'",
            do=f"Splits: {', '.join(files) or 'none'}. Name what holds it: dict(type='{kind}', {split}=...).",
        )
    return files[split]


def _is_files(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(isinstance(item, str | Path) for item in value)
    return isinstance(value, str | Path) and bool(str(value))


def text_option(kind: str, name: str, value: Any) -> str:
    """Return an option that is a text; ConfigError if it is none or empty."""
    if isinstance(value, str) and value:
        return value
    raise ConfigError(
        f"{name}={value!r} is not a text of one or more characters.", where=f"data of type '{kind}'"
    )
