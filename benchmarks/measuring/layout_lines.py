"""Count what layouts cost in lines of code."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compt.interfaces import Layout

BUILT_IN = "compt.layouts"
"""The package whose files may use each other."""

Name = tuple[str, str]
"""A module, and the name of something in it."""


@dataclass(frozen=True)
class Lines:
    """How many lines of code a layout has, without blank ones, comments and docstrings."""

    own: int
    """Of its class, and of what no other layout uses."""
    shared: int
    """Of what others use too, base classes among them."""


def lines_of(layout: type[Layout]) -> Lines:
    """Count the lines of a layout, and of what it uses in its file and in those of others."""
    own_name = (layout.__module__, layout.__qualname__)
    used = _reached(own_name)
    of_others = {
        name
        for class_name, node in _statements(layout.__module__).items()
        if isinstance(node, ast.ClassDef) and class_name != own_name[1]
        for name in _reached((layout.__module__, class_name))
    }
    alone = {name for name in used - of_others if name[0] == layout.__module__} | {own_name}
    counts = {name: _count(_statements(name[0])[name[1]]) for name in used}
    own = sum(counts[name] for name in alone)
    return Lines(own, sum(counts.values()) - own)


@cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())


@cache
def _statements(module: str) -> dict[str, ast.stmt]:
    """Return classes, functions and constants of a module, by name."""
    return {name: node for node in _parsed(module).body for name in _names_given(node)}


@cache
def _imported(module: str) -> dict[str, Name]:
    """Return what a module imports of other files with layouts, by the name that it has there."""
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in _parsed(module).body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(BUILT_IN)
        for alias in node.names
    }


def _reached(name: Name) -> set[Name]:
    """Return the statements that one uses, and those that they use, itself among them."""
    reached, waiting = set[Name](), [name]
    while waiting:
        reached.add(current := waiting.pop())
        module = current[0]
        known = {own: (module, own) for own in _statements(module)} | _imported(module)
        nodes = ast.walk(_statements(module)[current[1]])
        used = {known[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in known}
        waiting += used - reached
    return reached


def _names_given(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement gives to something."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


def _count(statement: ast.stmt) -> int:
    """Count the lines of a statement on which there is code."""
    docstrings = {
        line
        for node in ast.walk(statement)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = {
        line
        for node in ast.walk(statement)
        if isinstance(node, (ast.stmt, ast.expr, ast.arg))
        for line in (node.lineno, node.end_lineno or node.lineno)
    }
    return len(lines - docstrings)
