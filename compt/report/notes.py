"""Say what the tables of a report do not, of a run's data and training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from compt.report.format import incident_lines, left_out_lines

if TYPE_CHECKING:
    from compt.report.results import RunResult


def left_out_notes(run: RunResult) -> Iterator[str]:
    """Yield what of the data was left out, once where it was the same for several members."""
    lines: dict[str, list[str]] = {}
    for member in run.members:
        for line in left_out_lines(member.record.left_out):
            lines.setdefault(line, []).append(member.name)
    for line, names in lines.items():
        which = "" if len(names) == len(run.members) else f", {', '.join(names)}"
        yield f"{run.label}{which}: {line}."


def incident_notes(run: RunResult) -> Iterator[str]:
    """Yield what happened to the losses of a run's members."""
    for member in run.members:
        for line in incident_lines(member.record):
            yield f"{run.label}, '{member.record.name}': {line}."
