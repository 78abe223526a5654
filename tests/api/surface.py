"""Writes down the public API as text, a line a name, argument, method or field: ``python -m
tests.api.surface``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from compt import api

FOLDER = Path(__file__).parent


def recorded(version: str) -> Path:
    """The file that holds the API of a version."""
    return FOLDER / f"{version}.txt"


def lines() -> list[str]:
    """Everything that a plug-in may rely on, sorted."""
    found = []
    for module, names in {"compt": api.NAMES, **api.MODULES}.items():
        for name in names:
            found += _described(f"{module}.{name}", getattr(import_module(module), name))
    return sorted(found)


def _described(path: str, thing: Any) -> Iterator[str]:
    if inspect.isclass(thing):
        yield f"{path}({_bases(thing)})"
        yield from _arguments(
            f"{path}()", thing.__init__ if not dataclasses.is_dataclass(thing) else thing
        )
        for name, member in _members(thing):
            if callable(member):
                yield from _described(f"{path}.{name}", member)
            else:
                yield f"{path}.{name}"
    elif inspect.isfunction(thing):
        yield from _arguments(f"{path}()", thing)
    else:
        yield path


def _bases(cls: type) -> str:
    return ", ".join(
        base.__name__ for base in cls.__mro__[1:] if base.__module__.startswith("compt")
    )


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public members of a class and its bases in compt."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("compt")]
    names = {
        name for base in bases for name in {**vars(base), **vars(base).get("__annotations__", {})}
    }
    for name in sorted(names):
        if not name.startswith(("_", "test_")):
            member = inspect.getattr_static(cls, name, None)
            yield name, member if inspect.isfunction(member) else None


def _arguments(path: str, function: Any) -> Iterator[str]:
    yield f"{path} [abstract]" if getattr(function, "__isabstractmethod__", False) else path
    for p in inspect.signature(function).parameters.values():
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        only = "*, " if p.kind is p.KEYWORD_ONLY else ""
        default = "" if p.default is p.empty else " = ..."
        if p.name != "self":
            yield f"{path} {only}{star}{p.name}{default}"


if __name__ == "__main__":
    recorded(api.API_VERSION).write_text("\n".join(lines()) + "\n")
