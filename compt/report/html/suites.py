"""Lay out what suites of benchmarks measured, one table a suite and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from compt.report.evaluation_tables import rows
from compt.report.evaluations import Evaluation, read_noting
from compt.report.html.tables import Table

if TYPE_CHECKING:
    from compt.report.html.stages import Stage


@dataclass(frozen=True)
class Suites:
    """What suites measured of all runs."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """On evaluations that cannot be read, or are of other weights than the stage's."""


def read_suites(by_run: Sequence[Sequence[Stage]]) -> Suites:
    """Read what was measured of the stages of all runs."""
    tables: list[Table] = []
    notes: list[str] = []
    for stages in by_run:
        measured = {stage.name: _read(stage, notes) for stage in stages}
        tables += _tables(stages[0].run.label, measured)
    return Suites(tuple(tables), tuple(notes))


def _read(stage: Stage, notes: list[str]) -> tuple[Evaluation, ...]:
    """Return a stage's evaluations, and note what is wrong with them."""
    files = stage.member.record.files if stage.member else {}
    evaluations, faults = read_noting(stage.folder, files)
    notes += [f"{stage.run.label}, '{stage.name}': {fault}" for fault in faults]
    return evaluations


def _tables(run: str, measured: dict[str, tuple[Evaluation, ...]]) -> Iterator[Table]:
    members = [name for name, evaluations in measured.items() if evaluations]
    for label, group in groupby(rows(measured), lambda row: row.label):
        cells = tuple(
            (row.metric, row.chance, *(row.value(name) for name in members)) for row in group
        )
        yield Table(f"{label}, {run}", ("metric", "chance", *members), cells).used()
