"""Show a report in the terminal, as tables and sentences on what they leave open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from compt.report import evaluation_tables
from compt.report.columns import Column, table_of
from compt.report.cost_table import cost_table
from compt.report.format import duration, growth_text, metric_text, quantity, times
from compt.report.metrics import MetricValue
from compt.report.speed import speed_note

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from compt.report.comparison import Comparison, MemberComparison, Report
    from compt.report.evaluations import Evaluation
    from compt.report.results import MemberResult, RunResult

CHARGES = (
    "FLOP alone: the whole budget of the member trained alone. "
    "Equal after: the chain's own stage up to",
    "its first measurement at or beyond that member's final metric. "
    "Before it: all stages it builds on.",
    "Saved: how many times less the own stage took; in all: with the stages before it charged too.",
    "Each metric is of one run: no spread is known.",
)
"""How the table of a comparison counts."""


def tables(report: Report, width: int = 100) -> list[Table]:
    """Return the costs of all runs, one row a member, then each run's metrics, one row a metric.

    What suites of benchmarks measured follows, for all runs together.
    """
    result = [cost_table(report)]
    for run in report.runs:
        result += _metric_tables(run, width)
    return [*result, *evaluation_tables.tables(_evaluations(report), width)]


def _evaluations(report: Report) -> dict[str, tuple[Evaluation, ...]]:
    """Return what was measured by member, of which several runs have one each."""
    measured = {}
    for run in report.runs:
        for member in run.members:
            name = f"{member.name} {run.label}" if len(report.runs) > 1 else member.name
            measured[name] = member.evaluations
    return measured


def _metric_tables(run: RunResult, width: int) -> list[Table]:
    """Return all held-out metrics of a run, one row a metric, chance beside it.

    Each table has as many members as fit into ``width``.
    """
    names = list(dict.fromkeys(name for member in run.members for name in member.record.metrics))
    if len(names) < 2:  # the costs have it
        return []
    key = [
        Column.of(f"held out, {run.label}", names, is_text=True),
        Column.of("chance", (_chance(run, name) for name in names)),
    ]
    packed = [list(key)]
    for member in run.members:
        column = Column.of(member.name, (_value(member, name) for name in names))
        if len(packed[-1]) > len(key) and sum(c.width for c in (*packed[-1], column)) > width:
            packed.append(list(key))
        packed[-1].append(column)
    splits = [name.partition("/")[0] for name in names]
    ends = [i for i in range(1, len(names)) if splits[i] != splits[i - 1]]
    return [table_of(columns, ends) for columns in packed]


def _chance(run: RunResult, name: str) -> str:
    """Write a metric's chance level as its values are written."""
    metric = next(m.record.metrics[name] for m in run.members if name in m.record.metrics)
    return _number(metric.chance, metric.chance, metric.unit)


def _value(member: MemberResult, name: str) -> str:
    return metric_text(member.record.metrics.get(name), with_chance=False)


def _number(value: float | None, chance: float | None, unit: str | None) -> str:
    metric = None if value is None else MetricValue(value, chance, unit=unit)
    return metric_text(metric, with_chance=False)


def comparison_table(comparison: Comparison) -> Table:
    """Return one row a member, its final metrics beside the compute to equal training alone."""
    rows = [_comparison_cells(member) for member in comparison.members]
    costs = ("FLOP alone", "equal after", "before it", "saved", "in all")
    headers = ("member", comparison.individual, comparison.chain, "verdict", *costs)
    columns = [
        Column.of(header, (row[i] for row in rows), is_text=header in ("member", "verdict"))
        for i, header in enumerate(headers)
    ]
    return table_of(columns, [])


def _comparison_cells(m: MemberComparison) -> tuple[str, ...]:
    if m.individual is None or m.chain is None or m.individual_flops is None:
        return (m.name, "", "", "", "", m.status, "", "", "")
    return (
        m.name,
        _number(m.individual, m.chance, m.unit),
        _number(m.chain, m.chance, m.unit),
        m.verdict or "",
        quantity(m.individual_flops),
        m.status if m.reached_flops is None else quantity(m.reached_flops),
        quantity(m.ancestor_flops or 0),
        times(m.acceleration),
        times(m.acceleration_with_ancestors),
    )


def sentences(report: Report) -> Iterator[str]:
    """Yield what the tables leave open.

    Where the runs are, how compute is charged, and what is not compared.
    """
    for run in report.runs:
        costs = f"{quantity(run.flops, 'FLOP')}, {duration(run.seconds)} of training"
        yield f"{run.label}: {run.path} ({costs})"
        yield from _growth_sentences(run)
        for member in run.members:
            yield from (f"{run.label}, '{member.name}': {n}" for n in member.evaluation_notes)
    if note := speed_note(report.runs):
        yield note
    for comparison in report.comparisons:
        yield family_text(comparison)
        yield from open_points(comparison)
    if report.comparisons:
        yield from CHARGES
    yield from report.notes


def _growth_sentences(run: RunResult) -> Iterator[str]:
    """Yield how each member was grown that is not just what its source was."""
    for member in run.members:
        growth = member.record.growth
        if growth and (growth.dropped or not growth.function_preserving or growth.error is None):
            yield f"{run.label}: growth of '{member.name}' {growth_text(growth)}."


def family_text(comparison: Comparison) -> str:
    """Return the acceleration of the whole family in one sentence."""
    label = comparison.chain
    if comparison.acceleration is not None:
        full, first = times(comparison.acceleration_full), times(comparison.acceleration)
        return (
            f"{label}: every member reaches the one trained alone; acceleration of the family "
            f"{full} as it ran, {first} with each stage only until then."
        )
    members = comparison.members
    unknown = tuple(m.name for m in members if m.status not in ("reached", "missed"))
    causes = {"missed": comparison.missed, "unknown": unknown}
    why = "; ".join(f"{cause}: {', '.join(names)}" for cause, names in causes.items() if names)
    return f"{label}: no acceleration of the whole family ({why or 'no compute was needed'})."


def open_points(comparison: Comparison) -> Iterator[str]:
    """Yield which members are not compared and why, and whose comparison is not the whole story."""
    for member in comparison.members:
        if member.reason:
            yield f"'{member.name}' is not compared: {member.reason}."
    if early := _charged_alike(comparison):
        names = ", ".join(early)
        yield f"Had their final metric alone before the end; saved up to there: {names}."


def _charged_alike(comparison: Comparison) -> list[str]:
    """Return the members that were as good alone before their end, with what is saved up to there.

    Both sides are charged to their first measurement of the metric, so that a plateau alone does
    not pass for an acceleration.
    """
    saved = []
    for member in comparison.members:
        first, whole = member.individual_first_flops, member.individual_flops
        if first and whole and first < whole:
            reached = member.reached_flops
            saved.append(f"{member.name} {times(first / reached if reached else None)}")
    return saved


def show(report: Report, paths: Sequence[Path], *, as_json: bool) -> None:
    """Print JSON to stdout, or tables, sentences and the paths of the files."""
    if as_json:
        print(json.dumps(report.to_dict(), indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    width = console.width if console.is_terminal else 100
    # rich cuts the cells of a table that is wider than the console; a narrow terminal that
    # wraps the lines loses nothing.
    console.width = 1000
    for table in (*tables(report, max(80, width)), *map(comparison_table, report.comparisons)):
        console.print(table)
        console.print()
    for line in (*sentences(report), *(f"wrote {path}" for path in paths)):
        console.print(line)
