"""What a report says in the terminal: tables, then sentences on what they leave open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compt.report.format import duration, figure_text, quantity, times

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from compt.report.comparison import Comparison, MemberComparison, Report
    from compt.report.results import MemberResult, RunResult

CHARGES = (
    "FLOP alone: the whole budget of the member trained alone. Equal after: the chain's own stage up to",
    "its first measurement at or beyond that member's final figure. Before it: all stages it builds on.",
    "Saved: how many times less the own stage took; in all: with the stages before it charged too.",
    "Each figure is of one run: no spread is known.",
)
"""How the table of a comparison counts."""


def tables(report: Report, width: int = 100) -> list[Table]:
    """One row a member with its costs and main figure; then, for each run, one row a figure."""
    return [
        _cost_table(report),
        *(table for run in report.runs for table in _figure_tables(run, width)),
    ]


def _cost_table(report: Report) -> Table:
    rows: list[tuple[RunResult, MemberResult | str]] = []
    for run in report.runs:
        rows += [(run, member) for member in run.members]
        rows += [(run, name) for name in run.unfinished]
    columns = [_Column("member", tuple(m if isinstance(m, str) else m.name for _, m in rows))]
    if len(report.runs) > 1:
        columns.insert(0, _Column("run", tuple(run.label for run, _ in rows)))
    facts = [_cost_cells(run, member) for run, member in rows]
    columns += [_Column(header, tuple(row[header] for row in facts)) for header in facts[0]]
    for name in dict.fromkeys(
        m.main_metric for _, m in rows if not isinstance(m, str) and m.main_metric
    ):
        cells = tuple(
            "" if isinstance(m, str) else figure_text(m.metrics.get(name)) for _, m in rows
        )
        columns.append(_Column(name, cells))
    ends = [i for i in range(1, len(rows)) if rows[i][0] is not rows[i - 1][0]]
    return _table(columns, ends)


def _figure_tables(run: RunResult, width: int) -> list[Table]:
    """All held-out figures of a run: one row a figure, chance beside it, as many members as fit
    into ``width``.
    """
    first = {
        name: metric for member in reversed(run.members) for name, metric in member.metrics.items()
    }
    names = list(dict.fromkeys(name for member in run.members for name in member.metrics))
    if len(names) < 2:  # the costs have it
        return []
    chances = tuple(_short(first[name]["chance"], first[name]["chance"]) for name in names)
    key = [_Column(f"held out, {run.label}", tuple(names)), _Column("chance", chances)]
    packed = [list(key)]
    for member in run.members:
        column = _Column(
            member.name, tuple(_short_figure(member.metrics.get(name)) for name in names)
        )
        if len(packed[-1]) > len(key) and sum(c.width for c in (*packed[-1], column)) > width:
            packed.append(list(key))
        packed[-1].append(column)
    splits = [name.partition("/")[0] for name in names]
    ends = [i for i in range(1, len(names)) if splits[i] != splits[i - 1]]
    return [_table(columns, ends) for columns in packed]


def comparison_table(comparison: Comparison) -> Table:
    """One row a member: the chain's final figure against individual training, and the compute to
    equal it.
    """
    costs = ("FLOP alone", "equal after", "before it", "saved", "in all")
    headers = ("member", comparison.individual, comparison.chain, "verdict", *costs)
    rows: list[tuple[str, ...]] = []
    for m in comparison.members:
        if m.individual is None or m.chain is None or m.individual_flops is None:
            rows.append((m.name, "", "", "", "", m.status, "", "", ""))
            continue
        figures = (_short(value, m.chance) for value in (m.individual, m.chain))
        reached = m.status if m.reached_flops is None else quantity(m.reached_flops)
        spent = (quantity(m.individual_flops), reached, quantity(m.ancestor_flops or 0))
        saved = (times(m.acceleration), times(m.acceleration_with_ancestors))
        rows.append((m.name, *figures, m.verdict or "", *spent, *saved))
    return _table([_Column(h, tuple(row[i] for row in rows)) for i, h in enumerate(headers)], [])


def sentences(report: Report) -> Iterator[str]:
    """What the tables leave open: where the runs are, how compute is charged, what is not
    compared.
    """
    for run in report.runs:
        yield f"{run.label}: {run.path} ({quantity(run.flops, 'FLOP')}, {duration(run.seconds)} of training)"
    for c in report.comparisons:
        yield family_text(c)
        yield from (f"'{m.name}' is not compared: {m.reason}." for m in c.members if m.reason)
        early = {
            m.name: m
            for m in c.members
            if (m.individual_first_flops or 0) < (m.individual_flops or 0)
        }
        fair = [
            f"{n} {times(_charged_alike(m))}" for n, m in early.items() if m.individual_first_flops
        ]
        if fair:
            yield f"Had their final figure alone before the end; saved up to there: {', '.join(fair)}."
    if report.comparisons:
        yield from CHARGES
    yield from report.notes


def family_text(c: Comparison) -> str:
    """The acceleration of the whole family in one sentence."""
    if c.acceleration is not None:
        full, first = times(c.acceleration_full), times(c.acceleration)
        what = (
            f"acceleration of the family {full} as it ran, {first} with each stage only until then"
        )
        return f"{c.chain}: every member reaches the one trained alone; {what}."
    unknown = tuple(m.name for m in c.members if m.status not in ("reached", "missed"))
    causes = {"missed": c.missed, "unknown": unknown}
    why = "; ".join(f"{cause}: {', '.join(names)}" for cause, names in causes.items() if names)
    return f"{c.chain}: no figure for the whole family ({why or 'no compute was needed'})."


def show(report: Report, paths: Sequence[Path], *, as_json: bool) -> None:
    """Print JSON to stdout, or tables, sentences and the paths of the files."""
    if as_json:
        print(json.dumps(report.to_dict(), indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    width = console.width if console.is_terminal else 100
    console.width = (
        1000  # a table is as wide as its columns; a narrower terminal wraps rather than cuts
    )
    for table in (*tables(report, max(80, width)), *map(comparison_table, report.comparisons)):
        console.print(table)
        console.print()
    for line in (*sentences(report), *(f"wrote {path}" for path in paths)):
        console.print(line)


@dataclass(frozen=True)
class _Column:
    header: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        return max(map(len, (self.header, *self.cells))) + 2

    @property
    def left(self) -> bool:
        """Whether it is text, which stands left."""
        return self.header.startswith(("run", "member", "grower", "verdict", "held out"))


def _cost_cells(run: RunResult, member: MemberResult | str) -> dict[str, str]:
    """What a stage is and costs, by column; an unfinished one says so in the place of its time."""
    if isinstance(member, str):
        state = run.unfinished[member]
        return {
            "params": "",
            "samples": "",
            "compute": "",
            "share": "",
            "time": state,
            "grower (exact)": "",
        }
    return {
        "params": quantity(member.params),
        "samples": quantity(member.samples),
        "compute": quantity(member.flops, "FLOP"),
        "share": f"{100 * member.flops / (run.flops or 1):.0f} %",
        "time": duration(member.seconds),
        "grower (exact)": f"{member.grower} ({'yes' if member.exact else 'no'})"
        if member.grower
        else "-",
    }


def _short(value: float | None, chance: float | None) -> str:
    return _short_figure({"value": value, "chance": chance} if value is not None else None)


def _short_figure(metric: Mapping[str, Any] | None) -> str:
    """A figure without its chance level."""
    return figure_text(metric).partition(" (")[0]


def _table(columns: Sequence[_Column], section_ends: Sequence[int]) -> Table:
    """A rich table whose first text columns stand left, numbers right; a rule after each run."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column.header, justify="left" if column.left else "right", no_wrap=True)
    for index, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*row, end_section=index + 1 in section_ends)
    return table


def _charged_alike(m: MemberComparison) -> float | None:
    """What the own stage saved with both sides charged to their first measurement of the figure."""
    first, reached = m.individual_first_flops, m.reached_flops
    return first / reached if first and reached else None
