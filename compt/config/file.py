"""Read a config file in mmengine's text format, override keys, and import its modules."""

from __future__ import annotations

import ast
import copy
import inspect
import re
import symtable
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.config.keys import listed
from compt.errors import ConfigError

HELPER = "_"
"""What names of helper variables begin with."""


@dataclass(frozen=True)
class ConfigFile:
    """What a config says, as plain types, and which of it the author wrote."""

    name: str
    where: str
    """Path of the file, for messages."""
    content: dict[str, Any]
    """Values by key; functions, modules and helper variables are no keys."""
    own: frozenset[str]
    """Keys that the file itself sets, or an option on the command line."""
    foreign: frozenset[str]
    """Keys that only a package's base file sets, as of ``_base_ = ['mmpretrain::...']``."""
    left_out: tuple[str, ...] = ()
    """Keys of base files that are not taken over."""


def read_config(
    source: str | Path | Mapping[str, Any] | Config, options: Mapping[str, Any] | None = None
) -> ConfigFile:
    """Read a config from a path, a dict or a Config, and override dotted keys.

    The source stays as it is.

    Raises:
        ConfigError: there is no such file, it is no Python, or an option does not fit it.
    """
    config = copy.deepcopy(source) if isinstance(source, Config) else _open(source)
    options = dict(options or {})
    _check_options(options)
    try:
        config.merge_from_dict(options)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError) as error:
        what = f"--cfg-options do not fit the config: {type(error).__name__}: {error}."
        raise ConfigError(what, do="Write them as chain.1.epochs=9.") from error
    content = {name: value for name, value in config.to_dict().items() if _is_key(name, value)}
    path = Path(str(config.filename or ""))
    own, foreign = set(content), set[str]()
    if path.suffix == ".py":
        names, bases = top_level_names(path), [top_level_names(base) for base in _own_bases(path)]
        own = names.assigned | {option.partition(".")[0] for option in options}
        based = set[str]().union(*(base.assigned for base in bases))
        for name in names.imported.union(*(base.imported for base in bases)) - own - based:
            content.pop(name, None)
        foreign = content.keys() - own - based
    return ConfigFile(
        name=path.stem or "chain",
        where=str(path) if path.name else "config",
        content=content,
        own=frozenset(own),
        foreign=frozenset(foreign),
    )


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for a helper variable, which was used while the file was read."""
    for option in options:
        if option.startswith(HELPER):
            raise ConfigError(
                f"--cfg-options: {option} is a helper variable, which was used when the file was "
                "read.",
                do="Override the keys that are made of it.",
            )


def _is_key(name: str, value: Any) -> bool:
    """Tell keys from what a config file, a program, needs besides."""
    return not (name.startswith(HELPER) or callable(value) or inspect.ismodule(value))


@dataclass(frozen=True)
class Names:
    """The names that a config file sets at its top level, without its base files."""

    assigned: set[str]
    imported: set[str]


def top_level_names(path: Path) -> Names:
    """Return the names that a config file assigns and imports at its top level."""
    text = path.read_text("utf-8")
    try:
        symbols = symtable.symtable(text, str(path), "exec").get_symbols()
    except SyntaxError:  # mmengine's {{$NAME:default}} is no Python
        return Names(set(re.findall(r"^(\w+)\s*=", text, re.MULTILINE)), set())
    return Names(
        {symbol.get_name() for symbol in symbols if symbol.is_assigned()},
        {symbol.get_name() for symbol in symbols if symbol.is_imported()},
    )


def _own_bases(path: Path) -> Iterator[Path]:
    """Yield the base files of a config, and theirs, but for those inside packages."""
    match = re.search(
        r"^_base_\s*=\s*(\[.*?\]|\(.*?\)|['\"].*?['\"])",
        path.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    try:
        names = listed(ast.literal_eval(match[1])) if match else []
    except (ValueError, SyntaxError):
        names = []  # mmengine has read it, so it is literal but for what it fills in itself
    for name in names:
        base = path.parent / str(name)
        if "::" not in str(name) and base.suffix == ".py" and base.is_file():
            yield base
            yield from _own_bases(base)


def _open(source: str | Path | Mapping[str, Any]) -> Config:
    if isinstance(source, Mapping):
        return Config(copy.deepcopy(dict(source)))
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"There is no config file '{source}'.", do="Check the path.")
    try:
        return Config.fromfile(str(path), import_custom_modules=False, lazy_import=False)
    except FileNotFoundError as error:
        what = f"A file that the config builds on is missing: {error}."
        raise ConfigError(what, where=str(path)) from error
    except (Exception, SystemExit) as error:  # a config is a program: anything can be wrong in it
        what = f"The config cannot be read: {type(error).__name__}: {error}."
        raise ConfigError(what, where=str(path), do="Correct it; it is plain Python.") from error


def import_modules(custom_imports: Any, where: str) -> None:
    """Import the modules of ``custom_imports``, which register a config's own plug-ins.

    Raises:
        ConfigError: one cannot be imported.
    """
    options = custom_imports if isinstance(custom_imports, Mapping) else {}
    names: Iterable[Any] = listed(options.get("imports"))
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # whatever its code raises
            if options.get("allow_failed_imports") and isinstance(error, ImportError):
                continue
            raise ConfigError(
                f"custom_imports: '{name}' cannot be imported: {type(error).__name__}: {error}.",
                where=where,
                do="Check the name, and that PYTHONPATH has the folder that it is in.",
            ) from error
