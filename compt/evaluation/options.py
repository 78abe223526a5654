"""Options of suites as they are recorded, and what a suite needs installed."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import typing
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compt.errors import ConfigError, PluginError
from compt.interfaces import Suite
from compt.interfaces.foreign import read_text
from compt.registry.values import alternatives, without_metadata


def complete(suite: type[Suite], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suite's options as they are recorded, with its defaults, as JSON types.

    Paths are absolute, and what changes no metric is left out.
    """
    hints = typing.get_type_hints(suite.__init__, include_extras=True)
    return {
        name: _plain(value, names_path=_names_path(hints.get(name)))
        for name, value in {**_defaults(suite), **options}.items()
        if name not in suite.without_effect
    }


def _defaults(suite: type[Suite]) -> dict[str, Any]:
    """Return the values of the options that may be left out."""
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(suite).parameters.values()
        if parameter.default is not parameter.empty
    }
    fields: tuple[dataclasses.Field[Any], ...] = ()
    if dataclasses.is_dataclass(suite):
        fields = dataclasses.fields(suite)
    # The signature of a dataclass has a placeholder for what a factory makes.
    for field in fields:
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _names_path(annotation: Any) -> bool:
    """Tell whether an annotation allows a path, alone or in a list."""
    for alternative in alternatives(annotation):
        kind, _ = without_metadata(alternative)
        if kind is Path or any(inner is Path for inner in typing.get_args(kind)):
            return True
    return False


def _plain(value: Any, *, names_path: bool) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, names_path=False) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, names_path=names_path) for inner in value]
    if isinstance(value, Path) or (names_path and isinstance(value, str)):
        return str(Path(value).expanduser().absolute())
    return value


def require(modules: Sequence[str], package: str) -> None:
    """Raise PluginError unless modules are installed.

    Args:
        modules: their names.
        package: what brings them, as pip takes it.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        names = ", ".join(f"'{module}'" for module in missing)
        raise PluginError(
            f"This suite needs what is not installed: {names}.",
            do=f'pip install "{package}"',
        )


def version(package: str) -> str:
    """Return the version of an installed package, '' where there is none."""
    try:
        return importlib.metadata.version(package) if package else ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def folder(path: Any, option: str) -> Path:
    """Return the folder that an option names.

    Raises:
        ConfigError: there is none.
    """
    named = Path(path).expanduser()
    if not named.is_dir():
        raise ConfigError(f"There is no folder '{named}'.", where=option, do="Check the path.")
    return named


def lines(path: Path, option: str) -> list[str]:
    """Return the lines of a text file that an option names, without empty ones.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    try:
        text = read_text(path.expanduser())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"'{path}' cannot be read: {why}.", where=option) from error
    content = [line.strip() for line in text.splitlines() if line.strip()]
    if not content:
        raise ConfigError(f"'{path}' is empty.", where=option, do="Write one entry a line.")
    return content
