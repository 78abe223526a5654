"""Read what a page shows of the stages of a run, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compt.errors import WorkDirError
from compt.files import GROWTH, stage_name
from compt.report.growth import GrowthRecord, GrowthReport
from compt.report.losses import MOST, Losses, read_losses

if TYPE_CHECKING:
    from compt.report.results import MemberResult, RunResult

MOST_IN_ALL = 30_000
"""Loss points of a page, which bound the size of the file."""


@dataclass(frozen=True)
class Stage:
    """One member of a run."""

    run: RunResult
    name: str
    folder: Path
    member: MemberResult | None
    """None while it is not finished."""
    source: Stage | None
    """The stage before it that it builds on, None where it builds on none."""
    growth: GrowthReport | None
    """How it got its first weights, None where nothing was grown, or not yet."""
    losses: Losses
    batch_size: int
    """0 where it is not recorded."""
    planned_samples: int | None
    """None in folders of older versions."""

    @property
    def samples(self) -> int:
        """Samples that it was trained on, or so far as logs have it."""
        if self.member is not None:
            return self.member.record.samples
        points = self.losses.points
        return points[-1].iteration * self.batch_size if points else 0

    @property
    def samples_before(self) -> int:
        """Samples of all stages that it builds on."""
        return 0 if self.source is None else self.source.samples_before + self.source.samples


def read_stages(runs: Sequence[RunResult]) -> tuple[Stage, ...]:
    """Return the stages of all runs in order.

    Folders of a run that have gone since have no losses.
    """
    num_stages = sum(len(run.members) + len(run.unfinished) for run in runs)
    most = max(20, min(MOST, MOST_IN_ALL // max(num_stages, 1)))
    stages = []
    for run in runs:
        source = None
        names = run.state.members if run.state else tuple(m.name for m in run.members)
        for index, name in enumerate(names):
            stage = _read_stage(run, index, name, source, most)
            stages.append(stage)
            source = stage if run.mode == "chain" else None
    return tuple(stages)


def _read_stage(run: RunResult, index: int, name: str, source: Stage | None, most: int) -> Stage:
    folder = Path(run.path) / stage_name(index, name)
    member = run.find(name)
    planned = run.state.stages[index : index + 1] if run.state else ()
    batch_size = planned[0].batch_size if planned else 0
    return Stage(
        run=run,
        name=name,
        folder=folder,
        member=member,
        source=source,
        growth=_read_growth(folder) if member is None else member.record.growth,
        losses=read_losses(folder, most),
        batch_size=batch_size if member is None else member.record.batch_size,
        planned_samples=planned[0].iters * batch_size if planned else None,
    )


def _read_growth(folder: Path) -> GrowthReport | None:
    """Return how a stage that is being trained was grown."""
    try:
        return GrowthRecord.read(folder / GROWTH).report
    except WorkDirError:  # not grown yet
        return None
