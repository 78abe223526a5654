"""Write the tables of docs/config.md from the keys.

``python -m compt.config.table docs/config.md`` does it.

The document marks the place of each table with ``<!-- keys: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from compt.config.keys import Key
from compt.config.mmengine_keys import REFUSED, RunnerKeys
from compt.config.options import Budget, GrownOptions, GuardOptions, PerformanceOptions
from compt.config.parallel import Sharded
from compt.config.schema import ChainConfig, StageConfig, StageDefaults
from compt.config.teachers import TeacherOptions

PLACE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _chain() -> str:
    elsewhere = {*RunnerKeys.all_keys(), *PerformanceOptions.all_keys()}
    return _key_table(
        declared for name, declared in ChainConfig.all_keys().items() if name not in elsewhere
    )


def _stage() -> str:
    keys = StageConfig.all_keys()
    budget = " or ".join(f"`{name}`" for name in Budget.all_keys())
    elsewhere = {*StageDefaults.all_keys(), *Budget.all_keys()}
    own = [declared for name, declared in keys.items() if name not in elsewhere]
    rows = [(f"`{declared.name}`", declared.options.help, _default(declared)) for declared in own]
    rows.insert(2, (budget, "exactly one: the budget", ""))
    merged = [
        name for name, declared in StageDefaults.all_keys().items() if declared.options.merged
    ]
    replaced = [
        name for name, declared in StageDefaults.all_keys().items() if not declared.options.merged
    ]
    rows.append((_names(replaced), "in place of the chain's", ""))
    merging = "merged into the chain's, key by key; a list or another `type` replaces"
    rows.append((_names(merged), merging, ""))
    return _table(("key", "meaning", "default"), rows)


def _refused() -> str:
    rows = ((f"`{name}`", reason) for name, reason in REFUSED.items())
    return _table(("refused", "instead"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "chain": _chain,
    "stage": _stage,
    "performance": lambda: _key_table(PerformanceOptions.all_keys().values()),
    "guard": lambda: _key_table(GuardOptions.all_keys().values()),
    "parallel": lambda: _key_table(Sharded.all_keys().values()),
    "teacher": lambda: _key_table(TeacherOptions.all_keys().values(), is_nested=True),
    "grown": lambda: _key_table(GrownOptions.all_keys().values(), is_nested=True),
    "mmengine": lambda: _key_table(RunnerKeys.all_keys().values()),
    "refused": _refused,
}


def written(document: str) -> str:
    """Return a document with every marked table as the keys say it."""
    return PLACE.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", document)


def _key_table(keys: Iterable[Key], *, is_nested: bool = False) -> str:
    """Return the table of some keys, which may have names of the chain's own where nested."""
    rows = (
        (
            f"`{declared.name}`",
            declared.options.help,
            "" if declared.options.treatment == "compt" else declared.options.treatment,
            _default(declared),
            "yes" if declared.name in _OVERRIDABLE and not is_nested else "",
            _may_change(declared),
        )
        for declared in keys
    )
    header = (
        "key",
        "meaning",
        "mmengine's",
        "default",
        "a stage may override",
        "may change on resume",
    )
    return _table(header, rows)


def _may_change(declared: Key) -> str:
    if entries := declared.options.resumable_entries:
        return _names(sorted(entries))
    return "yes" if declared.options.resumable else ""


_OVERRIDABLE = {declared.name for declared in fields(StageDefaults)}


def _default(declared: Key) -> str:
    if declared.required:
        return "required"
    if declared.options.shown_default:
        return declared.options.shown_default
    return "none" if declared.default is None else f"`{declared.default!r}`"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(header: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table without its empty columns."""
    table = [tuple(header), *rows]
    columns = [
        column
        for column in zip(*table, strict=True)
        if any(cell for cell in column[1:]) or column is table[0]
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True)]
    lines.insert(1, "|---" * len(columns) + "|")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text("utf-8")), "utf-8")
