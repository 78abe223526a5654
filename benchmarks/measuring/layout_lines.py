"""Count what layouts cost in lines of code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from compt.interfaces import Layout


@dataclass(frozen=True)
class Lines:
    """How many lines of code a layout has, without blank ones, comments and docstrings."""

    own: int
    """Of its class, and of what no other layout of its file uses."""
    shared: int
    """Of what others of its file use too, base classes among them."""


def lines_of(layout: type[Layout]) -> Lines:
    """Count the lines of a layout, in the file that its class is in."""
    statements = _named_statements(Path(inspect.getfile(layout)))
    users = {
        name: _reached(name, statements)
        for name, node in statements.items()
        if isinstance(node, ast.ClassDef)
    }
    lines = {name: _count(node) for name, node in statements.items()}
    others = {name for user, names in users.items() if user != layout.__name__ for name in names}
    used = users[layout.__name__]
    own = sum(lines[name] for name in used if name not in others or name == layout.__name__)
    return Lines(own, sum(lines[name] for name in used) - own)


def _named_statements(path: Path) -> dict[str, ast.stmt]:
    """Return classes, functions and constants of a file, by name."""
    return {name: node for node in ast.parse(path.read_text()).body for name in _names_given(node)}


def _names_given(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement gives to something."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


def _reached(name: str, statements: Mapping[str, ast.stmt]) -> set[str]:
    """Return the statements that one uses, and those that they use, itself among them."""
    reached, waiting = set[str](), [name]
    while waiting:
        reached.add(current := waiting.pop())
        used = {node.id for node in ast.walk(statements[current]) if isinstance(node, ast.Name)}
        waiting += (used & statements.keys()) - reached
    return reached


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
