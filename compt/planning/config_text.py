"""Write a config as Python that people would have written, with comments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from textwrap import wrap
from typing import Any

WIDTH = 88
"""Characters of a line."""
FIRST = ("custom_imports", "paradigm", "chain", "individual", "grower", "grown", "transfer")
"""Keys that a config begins with."""


def config_text(
    content: Mapping[str, Any],
    paragraphs: Sequence[str],
    comments: Mapping[str, str],
    members: Sequence[str],
) -> str:
    """Return a config as the text of a Python file.

    Args:
        content: as plain types.
        paragraphs: that the file begins with.
        comments: that stand above keys.
        members: comments that stand above the members of the chain.
    """
    known = [key for key in FIRST if key in content]
    docstring = "\n\n".join("\n".join(wrap(paragraph, WIDTH)) for paragraph in paragraphs)
    blocks = [f'"""{docstring}\n"""']
    for key in [*known, *sorted(content.keys() - FIRST)]:
        lines = _comment(comments.get(key, ""), "")
        if key == "chain":
            lines.append("chain = [")
            for stage, said in zip(content["chain"], members, strict=True):
                lines += [*_comment(said, "    "), f"    {_code(stage, 4)},"]
            lines.append("]")
        else:
            lines.append(f"{key} = {_code(content[key], 0, len(key) + 3)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return wrap(text, WIDTH, initial_indent=start, subsequent_indent=start)


def _code(value: Any, indent: int, before: int = 0) -> str:
    """Return a value as Python, on one line where it fits.

    Args:
        value: of plain types.
        indent: of the line that it begins on.
        before: characters that stand before it there.
    """
    flat = _flat(value)
    if indent + before + len(flat) < WIDTH or not isinstance(value, (Mapping, list, tuple)):
        return flat
    inner = indent + 4
    opening, items, closing = _parts(value)
    lines = [f"{' ' * inner}{name}{_code(item, inner, len(name))},\n" for name, item in items]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def _flat(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (Mapping, list, tuple)):
        return repr(value)
    opening, items, closing = _parts(value)
    inner = ", ".join(f"{name}{_flat(item)}" for name, item in items)
    is_single = isinstance(value, tuple) and len(value) == 1
    return f"{opening}{inner}{',' if is_single else ''}{closing}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """Return how a container opens, its items with what stands before each, and how it closes."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value):
            return "dict(", [(f"{key}=", item) for key, item in value.items()], ")"
        return "{", [(f"{key!r}: ", item) for key, item in value.items()], "}"
    opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
    return opening, [("", item) for item in value], closing
