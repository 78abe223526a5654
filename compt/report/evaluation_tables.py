"""Lay out what suites measured, one row a metric and one column a member, chance beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.report.evaluations import Evaluation, labels
from compt.report.format import metric_text, quiet_table
from compt.report.metrics import MetricValue

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = ("suite", "metric", "chance")


@dataclass(frozen=True)
class Row:
    """One metric of one suite, over the members."""

    label: str
    """The suite, with the options that tell it from other choices."""
    metric: str
    values: Mapping[str, MetricValue]
    """By member; those that it was not measured of are not there."""

    @property
    def chance(self) -> str:
        """What guessing would reach, where that is one number for all members."""
        levels = {metric.chance for metric in self.values.values()}
        (level, *others) = levels
        if others or level is None:
            return "-" if level is None and not others else "differs"
        metric = next(iter(self.values.values()))
        return metric_text(MetricValue(level, None, unit=metric.unit), with_chance=False)

    def value(self, member: str) -> str:
        """Return a member's value as people read it, '-' where there is none."""
        return metric_text(self.values.get(member), with_chance=False)


def rows(evaluations: Mapping[str, Sequence[Evaluation]]) -> list[Row]:
    """Return the metrics of members in rows, in the order in which they were measured.

    Args:
        evaluations: by member.
    """
    flat = [evaluation for measured in evaluations.values() for evaluation in measured]
    named = iter(labels(flat))
    cells: dict[tuple[str, str], dict[str, MetricValue]] = {}
    for member, measured in evaluations.items():
        for evaluation in measured:
            label = next(named)
            for name, metric in evaluation.metrics.items():
                cells.setdefault((label, name), {})[member] = metric
    order = list(dict.fromkeys(label for label, _ in cells))
    result = [Row(label, name, values) for (label, name), values in cells.items()]
    return sorted(result, key=lambda row: order.index(row.label))


def tables(evaluations: Mapping[str, Sequence[Evaluation]], width: int = 100) -> Iterator[Table]:
    """Yield tables of all metrics, each with as many members as fit into ``width``.

    Args:
        evaluations: by member; empty ones have no column.
        width: of the terminal.
    """
    all_rows = rows(evaluations)
    members = [member for member, measured in evaluations.items() if measured]
    taken = sum(_width(name, cells) for name, cells in zip(HEADERS, _keys(all_rows), strict=True))
    packed: list[list[str]] = [[]]
    free = width - taken
    for name in members:
        own = _width(name, [row.value(name) for row in all_rows])
        if packed[-1] and own > free:
            packed.append([])
            free = width - taken
        packed[-1].append(name)
        free -= own
    for names in filter(None, packed):
        yield _table([row for row in all_rows if row.values.keys() & set(names)], names)


def _keys(all_rows: Sequence[Row]) -> list[list[str]]:
    """Return the columns under ``HEADERS``."""
    keys = [(row.label, row.metric, row.chance) for row in all_rows]
    return [list(column) for column in zip(*keys, strict=True)] or [[], [], []]


def _width(header: str, cells: Sequence[str]) -> int:
    return max(map(len, (header, *cells))) + 2


def _table(shown: Sequence[Row], members: Sequence[str]) -> Table:
    """Return a rich table, in which each suite is named once and a rule stands below it."""
    from rich.text import Text

    table = quiet_table(None, [*HEADERS, *members], num_text=2, show_edge=False)
    for index, row in enumerate(shown):
        is_first = index == 0 or shown[index - 1].label != row.label
        is_last = index + 1 < len(shown) and shown[index + 1].label != row.label
        label = row.label if is_first else ""
        cells = [label, row.metric, row.chance, *map(row.value, members)]
        table.add_row(*map(Text, cells), end_section=is_last)
    return table
