"""Judge which keys of a config may change when a run is resumed.

Keys say it of themselves, with ``resumable`` and ``resumable_entries``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from compt.config.schema import ChainConfig, StageConfig, StageDefaults

_MISSING = object()
LATER_STAGES_ONLY = frozenset(StageDefaults.all_keys()) | {"evaluations", "individual"}
"""Keys of a chain that may change where only later stages are trained anew."""


@dataclass(frozen=True)
class Change:
    """One key that differs between two configs."""

    key: str
    """Dotted, such as 'chain.1.iters'."""
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"

    @property
    def member(self) -> int | None:
        """Index of the member whose key it is, None for one of the chain."""
        parts = self.key.split(".")
        return int(parts[1]) if parts[0] == "chain" and len(parts) > 1 else None

    @property
    def name(self) -> str:
        """The key itself, 'iters' of 'chain.1.iters'."""
        return _own(self.key).partition(".")[0]


def plain(value: Any) -> Any:
    """Return a config as JSON types, for comparison."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return every key that differs between two configs, as given by :func:`plain`."""
    old_values, new_values = dict(_leaves(old)), dict(_leaves(new))
    differing = [
        Change(key, old_values.get(key, _MISSING), new_values.get(key, _MISSING))
        for key in {*old_values, *new_values}
        if old_values.get(key, _MISSING) != new_values.get(key, _MISSING)
    ]
    return tuple(sorted(differing, key=lambda change: (change.key.partition(".")[0], change.key)))


def may_change(change: Change, *, num_members: int, first_anew: int | None = None) -> bool:
    """Return whether a resumed run may have the new value.

    Args:
        change: of one key.
        num_members: members of the run as it was; those behind them are new.
        first_anew: index of the first stage that is to be trained anew, None where all go on.
    """
    if change.member is not None and change.member >= num_members:
        return True
    if _is_free(change):
        return True
    if first_anew is None:
        return False
    if change.member is not None:
        return change.member >= first_anew
    return change.name in LATER_STAGES_ONLY


def _is_free(change: Change) -> bool:
    """Return whether a change touches nothing of what is trained."""
    name, _, entry = _own(change.key).partition(".")
    declared = {**StageConfig.all_keys(), **ChainConfig.all_keys()}.get(name)
    if declared is None:
        return False
    free_entries = declared.options.resumable_entries
    # A dict that holds nothing yet is its own leaf, and becomes the entry that is added.
    is_opened = not entry and all(value in ({}, _MISSING) for value in (change.old, change.new))
    return (
        declared.options.resumable
        or entry.partition(".")[0] in free_entries
        or bool(free_entries and is_opened)
    )


def _own(key: str) -> str:
    """Return a key without the member before it."""
    parts = key.split(".")
    return ".".join(parts[2:]) if parts[0] == "chain" and len(parts) > 2 else key


def _shown(value: Any) -> Any:
    return "not set" if value is _MISSING else value


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is no mapping or list, or is an empty one, by its dotted key."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    is_leaf = True
    for name, inner in items:
        is_leaf = False
        yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    if is_leaf:
        yield key, value
