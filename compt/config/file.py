"""Reads a config file: mmengine's text format, overrides, the modules it imports, the variables it
uses itself.
"""

from __future__ import annotations

import copy
import inspect
import io
import re
import symtable
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.errors import ConfigError


@dataclass(frozen=True)
class ConfigFile:
    """What a config says, as plain types: ``content`` by key.

    ``variables`` are names that its own text reads; ``inherited`` are keys that only a ``_base_``
    file sets.
    """

    name: str
    where: str
    content: dict[str, Any]
    variables: frozenset[str]
    inherited: frozenset[str]


def read_config(
    source: str | Path | Mapping[str, Any] | Config, options: Mapping[str, Any] | None = None
) -> ConfigFile:
    """Read a config from a path, a dict or a Config, and override dotted keys; the source stays as
    it is.

    Raises:
        ConfigError: there is no such file, it is no Python, or an option does not fit it.
    """
    config = copy.deepcopy(source) if isinstance(source, Config) else _open(source)
    try:
        config.merge_from_dict(dict(options or {}))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError) as error:
        what = f"--cfg-options do not fit the config: {type(error).__name__}: {error}."
        raise ConfigError(what, do="Write them as chain.1.epochs=9.") from error
    path = str(config.filename or "")
    content = {
        key: value
        for key, value in config.to_dict().items()
        if not (callable(value) or inspect.ismodule(value) or key.startswith("_"))
    }
    overridden = {
        key.partition(".")[0] for key in options or {}
    }  # too late for a variable that was used already
    variables = used_names(config.text or "") - overridden if path.endswith(".py") else set()
    inherited = set(content) - overridden - assigned_names(path) if path.endswith(".py") else set()
    return ConfigFile(
        Path(path).stem if path else "chain",
        path or "config",
        content,
        frozenset(variables),
        frozenset(inherited),
    )


def assigned_names(path: str) -> set[str]:
    """Names that a config file assigns at its top level, without its ``_base_`` files."""
    text = Path(path).read_text("utf-8")
    try:
        names = symtable.symtable(text, path, "exec").get_symbols()
    except SyntaxError:  # mmengine's {{$NAME:default}} is no Python
        return set(re.findall(r"^(\w+)\s*=", text, re.MULTILINE))
    return {name.get_name() for name in names if name.is_assigned()}


def _open(source: str | Path | Mapping[str, Any]) -> Config:
    if isinstance(source, Mapping):
        return Config(copy.deepcopy(dict(source)))
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"There is no config file '{source}'.", do="Check the path.")
    try:
        return Config.fromfile(str(path), import_custom_modules=False, lazy_import=False)
    except FileNotFoundError as error:
        raise ConfigError(
            f"A file that the config builds on is missing: {error}.", where=str(path)
        ) from error
    except (Exception, SystemExit) as error:  # a config is a program: anything can be wrong in it
        what = f"The config cannot be read: {type(error).__name__}: {error}."
        raise ConfigError(what, where=str(path), do="Correct it; it is plain Python.") from error


def used_names(text: str) -> set[str]:
    """Names that a text reads: neither only assigned, nor passed as a keyword, nor attributes (but
    of ``_base_``).

    The text of a config need not be Python: mmengine joins files, and fills in ``{{_base_.name}}``.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return set(re.findall(r"\w+", text))
    used: set[str] = set()
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.type == tokenize.STRING and re.match(
            r"[rR]?[fF]", token.string
        ):  # before Python 3.12
            used |= set(re.findall(r"\w+", token.string))
        elif token.type == tokenize.NAME and not (after and after.string == "="):
            attribute = before is not None and before.string == "."
            if not attribute or token.line[: token.start[1] - 1].endswith("_base_"):
                used.add(token.string)
    return used


def import_modules(custom_imports: Any, where: str) -> None:
    """Import the modules of ``custom_imports``, which register a config's own plug-ins.

    Raises:
        ConfigError: one cannot be imported.
    """
    given = custom_imports if isinstance(custom_imports, Mapping) else {}
    for name in listed(given.get("imports")):
        try:
            import_module(name)
        except Exception as error:  # whatever its code raises
            if given.get("allow_failed_imports") and isinstance(error, ImportError):
                continue
            raise ConfigError(
                f"custom_imports: '{name}' cannot be imported: {type(error).__name__}: {error}.",
                where=where,
                do="Check the name, and that PYTHONPATH has the folder that it is in.",
            ) from error


def listed(value: Any) -> list[Any]:
    """A value that may stand alone, as a list; None as an empty one."""
    if value is None:
        return []
    return (
        list(value)
        if isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
        else [value]
    )
