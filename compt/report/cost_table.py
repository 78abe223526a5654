"""Show in the terminal what every member of every run cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.report.columns import Column, table_of
from compt.report.format import duration, metric_text, quantity
from compt.report.speed import speed_header, speed_text

if TYPE_CHECKING:
    from rich.table import Table

    from compt.report.comparison import Report
    from compt.report.results import MemberResult, RunResult


@dataclass(frozen=True)
class _CostRow:
    """One member of a run, finished or not."""

    run: RunResult
    name: str
    member: MemberResult | None
    """None while it is not finished."""


def cost_table(report: Report) -> Table:
    """Return one row a member, finished or not."""
    rows = [row for run in report.runs for row in _cost_rows(run)]
    columns = [
        Column.of("member", (row.name for row in rows), is_text=True),
        Column.of("params", (_params(row) for row in rows)),
        Column.of("samples", (_samples(row) for row in rows)),
        Column.of("compute", (_compute(row) for row in rows)),
        Column.of("share", (_share(row) for row in rows)),
        Column.of("time", (_time(row) for row in rows)),
        *_speed_columns(rows),
        Column.of("grower (exact)", (_grower(row) for row in rows), is_text=True),
        *_main_metric_columns(rows),
    ]
    if len(report.runs) > 1:
        columns.insert(0, Column.of("run", (row.run.label for row in rows), is_text=True))
    ends = [i for i in range(1, len(rows)) if rows[i].run is not rows[i - 1].run]
    return table_of(columns, ends)


def _cost_rows(run: RunResult) -> list[_CostRow]:
    finished = [_CostRow(run, member.name, member) for member in run.members]
    return finished + [_CostRow(run, name, None) for name in run.unfinished]


def _params(row: _CostRow) -> str:
    return "" if row.member is None else quantity(row.member.record.params)


def _samples(row: _CostRow) -> str:
    return "" if row.member is None else quantity(row.member.record.samples)


def _compute(row: _CostRow) -> str:
    return "" if row.member is None else quantity(row.member.flops, "FLOP")


def _share(row: _CostRow) -> str:
    if row.member is None:
        return ""
    return f"{100 * row.member.flops / (row.run.flops or 1):.0f} %"


def _time(row: _CostRow) -> str:
    """Write the time, in whose place an unfinished member says so."""
    if row.member is None:
        return row.run.unfinished[row.name]
    return duration(row.member.record.seconds)


def _speed_columns(rows: Sequence[_CostRow]) -> list[Column]:
    """Return a column of how fast members were trained, none where no record says it."""
    members = [row.member for row in rows if row.member is not None]
    header = speed_header(members)
    return [Column.of(header, (_speed(row) for row in rows))] if header else []


def _speed(row: _CostRow) -> str:
    return "" if row.member is None else speed_text(row.member)


def _grower(row: _CostRow) -> str:
    if row.member is None:
        return ""
    if not row.member.grower:
        return "-"
    return f"{row.member.grower} ({'yes' if row.member.exact else 'no'})"


def _main_metric_columns(rows: Sequence[_CostRow]) -> list[Column]:
    """Return one column for every metric that is some member's main one."""
    members = [row.member for row in rows if row.member is not None]
    names = dict.fromkeys(m.record.main_metric for m in members if m.record.main_metric)
    return [Column.of(name, (_metric(row, name) for row in rows)) for name in names]


def _metric(row: _CostRow, name: str) -> str:
    return "" if row.member is None else metric_text(row.member.record.metrics.get(name))
