"""Refuse configs that came with checkpoints and work folders where they would run code.

mmengine imports whatever dotted path stands as a ``type``, ``os.system`` among them, and calls it;
transformers runs what lies beside a model where a config says so. In a config of one's own that is
as it should be: a config is a program.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.registry import Registry

from compt.errors import ConfigError, did_you_mean
from compt.interfaces.foreign import mappings

TRUST = "trust_remote_code"
"""The argument by which transformers runs code that lies beside a model."""


def check_types(content: Any, where: Path | str, *, has_plugins: bool = False) -> None:
    """Raise ConfigError where a stored config names a type that nothing has registered.

    Also where it asks for code of its own to be run.

    Args:
        content: nested mappings and lists.
        where: what to name in the error.
        has_plugins: whether names without a dot may be plug-ins of compt, which are registered
            elsewhere.
    """
    refuse_code(content, where)
    for mapping in mappings(content):
        name = mapping.get("type")
        may_be_plugin = has_plugins and "." not in str(name)
        if isinstance(name, str) and not may_be_plugin and not _is_known(name):
            raise ConfigError(
                f"The stored config names the type '{name}', which no library here has "
                f"registered.{did_you_mean(name, _all_names())}",
                where=str(where),
                do="Install the library that has it, and import it with custom_imports. Paths to "
                "objects are not followed: they could lead to any program.",
            )


def refuse_code(content: Any, where: Path | str) -> None:
    """Raise ConfigError where a config asks that code beside a model be run."""
    for mapping in mappings(content):
        if mapping.get(TRUST):
            raise ConfigError(
                f"The config asks for code of its own to be run ({TRUST}), which is not done.",
                where=str(where),
                do=f"Read what it would run; take {TRUST} out to go on without.",
            )


def _is_known(name: str) -> bool:
    """Tell whether a library has registered a name, parts of mmengine included that are not loaded.

    Its registries know of no place to load them from.
    """
    if not _is_registered(name):
        importlib.import_module("mmengine.runner")
    return _is_registered(name)


def _is_registered(name: str) -> bool:
    scope, dot, own = name.partition(".")
    if not dot:
        return any(name in registry.module_dict for registry in _registries())
    return any(own in registry.module_dict for registry in _registries() if registry.scope == scope)


def _all_names() -> set[str]:
    return {name for registry in _registries() for name in registry.module_dict}


def _registries() -> Iterator[Registry]:
    """Yield mmengine's registries and those of the libraries that build on them."""
    waiting = list(_roots())
    while waiting:
        registry = waiting.pop()
        yield registry
        waiting += registry.children.values()


@cache
def _roots() -> tuple[Registry, ...]:
    return tuple(v for v in vars(mmengine.registry).values() if isinstance(v, Registry))
