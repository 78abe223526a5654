"""Name the options in which two models differ, as their own configs call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compt.interfaces import Architecture

MOST_NAMED = 6
"""How many options a text names."""

Changed = Mapping[str, tuple[Any, Any]]
"""Values of the source and of the target by option."""


def changed_options(source: Architecture, target: Architecture) -> dict[str, tuple[Any, Any]]:
    """Return the options of both models that differ, with both values, but for sizes.

    Options that one of the two does not know are left out, as another class's own.
    """
    return {
        name: (source.options[name], value)
        for name, value in target.options.items()
        if name in source.options and not _are_alike(source.options[name], value)
    }


def options_text(changed: Changed) -> str:
    """Write options with both values, '' without any."""
    texts = [
        f"'{name}' is {small!r} in the source and {large!r} in the target"
        for name, (small, large) in changed.items()
    ]
    num_others = len(texts) - MOST_NAMED
    more = [f"{num_others} more differ"] if num_others > 0 else []
    return ", ".join([*texts[:MOST_NAMED], *more])


def fault_text(changed: Changed) -> str:
    """Write options as a sentence behind that of an error, '' without any."""
    return f" Options differ: {options_text(changed)}." if changed else ""


def advice(changed: Changed, otherwise: str) -> str:
    """Return what to do about models that differ.

    Args:
        changed: their options.
        otherwise: what helps besides, as a sentence.
    """
    if not changed:
        return otherwise
    return f"Set these options alike. Otherwise: {otherwise[0].lower()}{otherwise[1:]}"


def _are_alike(small: Any, large: Any) -> bool:
    if _is_size(small) and _is_size(large):
        return True
    if _is_list(small) and _is_list(large) and len(small) != len(large):
        # An entry for each block, as the kinds of attention are listed: depth may grow.
        are_sizes = all(map(_is_size, (*small, *large)))
        return are_sizes or set(map(repr, small)) == set(map(repr, large))
    return bool(small == large)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
