"""Say how runs were made, as config, data, versions and machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compt.report.html.tables import Table

if TYPE_CHECKING:
    from compt.report.results import RunResult

MOST_CONFIG = 300_000
"""Characters of all configs of a page, which bound the size of the file."""


@dataclass(frozen=True)
class Facts:
    """How one run was made."""

    label: str
    tables: tuple[Table, ...]
    config: str
    """As JSON."""
    num_left_out: int
    """Characters of the config that are not shown."""
    history: tuple[str, ...]
    """What resumptions changed."""


def all_facts(runs: Sequence[RunResult]) -> list[Facts]:
    """Return how each run was made."""
    return [_facts(run, MOST_CONFIG // max(len(runs), 1)) for run in runs]


def _facts(run: RunResult, most: int) -> Facts:
    state = run.state
    text = json.dumps(state.config, indent=2, ensure_ascii=False) if state else ""
    tables = (_environments(run), _data(run))
    return Facts(
        label=run.label,
        tables=tuple(table for table in tables if table.rows),
        config=text[:most],
        num_left_out=max(0, len(text) - most),
        history=tuple(_changes(state.history)) if state else (),
    )


def _environments(run: RunResult) -> Table:
    """Return versions and machine, in one column where they were the same for all members."""
    columns: dict[str, list[str]] = {}
    for member in run.members:
        columns.setdefault(json.dumps(dict(member.record.environment)), []).append(member.name)
    environments = [json.loads(text) for text in columns]
    keys = dict.fromkeys(key for environment in environments for key in environment)
    rows = [(key, *(str(values.get(key, "")) for values in environments)) for key in keys]
    headers = [", ".join(names) for names in columns.values()]
    if len(headers) == 1:
        headers = ["all members"]
    caption = f"Versions and machine, {run.label}"
    return Table(caption, ("", *headers), tuple(rows), num_text=1 + len(columns))


def _data(run: RunResult) -> Table:
    """Return what tells the data of each split from other data."""
    splits = run.state.data if run.state else {}
    names = dict.fromkeys(name for values in splits.values() for name in values)
    rows = tuple(
        (split, *(str(values.get(name, "")) for name in names)) for split, values in splits.items()
    )
    return Table(f"Data, {run.label}", ("split", *names), rows, num_text=1 + len(names))


def _changes(history: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    for entry in history:
        changes = entry.get("changes") or ()
        texts = changes if isinstance(changes, (list, tuple)) else [changes]
        yield f"{entry.get('time', 'resumed')}: {'; '.join(map(str, texts))}"
