"""Count what an author had to write."""

from __future__ import annotations

import ast
from pathlib import Path


def code_lines(path: Path) -> int:
    """Count the lines of a file that are neither blank nor docstrings."""
    text = path.read_text()
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if line.strip() and number not in docstrings)
