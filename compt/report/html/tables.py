"""Make the tables of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.report.format import duration, is_share, metric_text, quantity, times
from compt.report.metrics import MetricValue
from compt.report.speed import rate_text

if TYPE_CHECKING:
    from compt.report.comparison import Comparison, MemberComparison
    from compt.report.html.stages import Stage
    from compt.report.results import MemberResult, RunResult


MOST_NAME = 24
"""Characters of a row's name before it is broken, so that a phone shows numbers beside it."""


@dataclass(frozen=True)
class Table:
    """Text in rows, the first cell of each naming it."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text: int = 1
    """How many columns hold text, which stands left; the others hold numbers."""

    @property
    def name_width(self) -> int:
        """How many characters of a row's name are kept on one line."""
        return min(max((len(row[0]) for row in self.rows), default=0), MOST_NAME)

    def used(self) -> Table:
        """Return the table without columns that say nothing in any row."""
        rows = list(zip(*self.rows, strict=True))
        used = [i for i, cells in enumerate(rows) if set(cells) - {"", "-"}]
        return Table(
            self.caption,
            tuple(self.headers[i] for i in used),
            tuple(tuple(row[i] for i in used) for row in self.rows),
            sum(i < self.num_text for i in used),
        )


CHARGES = (
    "Budget alone: all that the member trained alone has cost. Equal after: what the chain's own "
    "stage had cost at its first measurement at or beyond that member's final metric. Saved: how "
    "many times less that is; in all: with the stages before it charged too."
)
"""How the gains count compute."""

Cell = Callable[["MemberResult"], str]
"""What a column says of a finished member."""


def side_by_side(runs: Sequence[RunResult]) -> Table | None:
    """Return one row a member and three columns a run, None for one run alone."""
    if len(runs) < 2:
        return None
    parts: tuple[tuple[str, Cell], ...] = (
        ("result", _result),
        ("compute", lambda member: quantity(member.cumulative_flops, "FLOP")),
        ("time", lambda member: duration(member.record.seconds)),
    )
    names = dict.fromkeys(name for run in runs for name in _names(run))
    rows = []
    for name in names:
        members = [run.find(name) for run in runs]
        cells = [cell(m) if m else "" for _, cell in parts for m in members]
        rows.append((name, *cells))
    headers = [f"{part}, {run.label}" for part, _ in parts for run in runs]
    caption = "Runs side by side; compute is with all before in the chain"
    return Table(caption, ("member", *headers), tuple(rows)).used()


def _names(run: RunResult) -> list[str]:
    return [*(member.name for member in run.members), *run.unfinished]


def _result(member: MemberResult) -> str:
    return metric_text(member.record.main, with_chance=False)


def gains(stages: Sequence[Stage], comparison: Comparison | None) -> Table | None:
    """Return what each member of a chain gained over its source and over alone.

    None where none was measured.
    """
    measured = [stage for stage in stages if stage.member and stage.member.record.main]
    if not measured:
        return None
    alone = {member.name: member for member in comparison.members} if comparison else {}
    rows = tuple(_gain_cells(stage, alone.get(stage.name)) for stage in measured)
    headers = (
        "member",
        "metric",
        "result",
        "its source had",
        "over its source",
        "alone",
        "over alone",
        "verdict",
        "budget alone",
        "equal after",
        "saved by its stage",
        "saved in all",
    )
    caption = f"What each member gained, {measured[0].run.label}"
    return Table(caption, headers, rows, num_text=2).used()


def _gain_cells(stage: Stage, alone: MemberComparison | None) -> tuple[str, ...]:
    assert stage.member is not None
    record = stage.member.record
    metric = record.main
    source = stage.source.member if stage.source else None
    source_metric = source.record.metrics.get(record.main_metric or "") if source else None
    cells = (
        stage.name,
        record.main_metric or "",
        metric_text(metric),
        metric_text(source_metric, with_chance=False),
        _difference(metric, source_metric),
    )
    return (*cells, *_alone_cells(metric, alone))


def _alone_cells(metric: MetricValue | None, alone: MemberComparison | None) -> tuple[str, ...]:
    if alone is None:
        return ("",) * 7
    if alone.individual is None:
        return ("", "", alone.status, "", "", "", "")
    individual = MetricValue(alone.individual, alone.chance, unit=alone.unit)
    reached = alone.reached_flops
    return (
        metric_text(individual, with_chance=False),
        _difference(metric, individual),
        alone.verdict or "",
        "" if alone.individual_flops is None else quantity(alone.individual_flops, "FLOP"),
        alone.status if reached is None else quantity(reached, "FLOP"),
        times(alone.acceleration),
        times(alone.acceleration_with_ancestors),
    )


def _difference(metric: MetricValue | None, other: MetricValue | None) -> str:
    """Write by how much a metric is above another, '' where one is missing."""
    if metric is None or other is None or metric.value is None or other.value is None:
        return ""
    difference = metric.value - other.value
    return f"{100 * difference:+.1f} points" if is_share(metric) else f"{difference:+.4g}"


def costs(runs: Sequence[RunResult]) -> Table | None:
    """Return what every finished member cost, None where there is none."""
    columns: tuple[tuple[str, Cell], ...] = (
        ("parameters", lambda m: quantity(m.record.params)),
        ("samples", lambda m: quantity(m.record.samples)),
        ("compute", lambda m: quantity(m.flops, "FLOP")),
        ("teacher's share", lambda m: _percent(m.record.teacher_share)),
        ("of the time", lambda m: _percent(m.record.teacher_time_share)),
        ("growth's share", lambda m: _percent(m.record.flops.growth / (m.flops or 1))),
        ("time", lambda m: duration(m.record.seconds)),
        ("of it growth", lambda m: duration(m.record.growth_seconds)),
        ("of it data", lambda m: _optional(m.record.data_seconds, duration)),
        ("evaluation", lambda m: _optional(m.record.evaluation_seconds, duration)),
        ("checkpoints", lambda m: _optional(m.record.checkpoint_seconds, duration)),
        ("samples/s", lambda m: _optional(m.record.samples_per_second, quantity)),
        ("per device", lambda m: rate_text(m.record.flops_per_second)),
        ("MFU", lambda m: _percent(m.mfu)),
        ("memory", lambda m: _optional(m.record.peak_memory_bytes, _size)),
        ("GPU memory", lambda m: _optional(m.record.peak_device_memory_bytes, _size)),
        ("energy", lambda m: _optional(m.record.energy_joules, _energy)),
    )
    rows = tuple(
        (run.label, member.name, *(cell(member) for _, cell in columns))
        for run in runs
        for member in run.members
    )
    headers = ("run", "member", *(header for header, _ in columns))
    return Table("Cost of every member", headers, rows, num_text=2).used() if rows else None


def energy_note(runs: Sequence[RunResult]) -> str:
    """Say which meters counted, and for how many members none did."""
    records = [member.record for run in runs for member in run.members]
    metered = [record for record in records if record.energy_joules is not None]
    meters = sorted({meter for record in metered for meter in record.energy_meters})
    if not metered:
        return "Energy is not known: no meter was found."
    missing = len(records) - len(metered)
    others = f"; of {missing} members it is not known" if missing else ""
    return f"Energy as counted by {', '.join(meters)}{others}."


def _optional(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f} %" if share else "-"


def _size(num_bytes: float) -> str:
    return quantity(num_bytes, "B")


def _energy(joules: float) -> str:
    return quantity(joules / 3600, "Wh")


def held_out(run: RunResult) -> Table | None:
    """Return all held-out metrics of a run, one row a metric, None where there are none."""
    names = list(dict.fromkeys(name for m in run.members for name in m.record.metrics))
    if not names:
        return None
    rows = tuple((name, *_metric_cells(run, name)) for name in names)
    headers = ("metric", "chance", *(member.name for member in run.members))
    return Table(f"Held out, {run.label}", headers, rows).used()


def _metric_cells(run: RunResult, name: str) -> list[str]:
    """Return chance and every member's value."""
    metrics = [member.record.metrics.get(name) for member in run.members]
    first = next(metric for metric in metrics if metric is not None)
    chance = None if first.chance is None else MetricValue(first.chance, 0.0, unit=first.unit)
    return [metric_text(metric, with_chance=False) for metric in (chance, *metrics)]
