"""Follow a run by what it tells its progress, and keep status.json true to it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.errors import ComptError
from compt.files import MANIFEST, STATUS, stage_name
from compt.report.format import left_out_lines
from compt.report.metrics import main_metric, read_metrics
from compt.report.progress import Silent
from compt.report.record import StageRecord
from compt.report.watch import machine
from compt.report.watch.costs import StepCosts, Steps, Timed
from compt.report.watch.pace import Pace
from compt.report.watch.status import Curves, Reference, RunState, RunStatus, StageStatus
from compt.report.watch.thinning import Thinned

if TYPE_CHECKING:
    from compt.planning.plans import ChainPlan, StagePlan

WRITTEN_EVERY = 5.0
"""Seconds between two signs of life."""
SIGNALLED = (130, 143)
"""Exit codes of a run that SIGINT or SIGTERM has ended."""


class Follower(Silent):
    """Knows what a run is doing, and writes it into the run's folder every few seconds.

    Args:
        folder: of the run.
        plan: of the run.
        other: folder whose stages the run's are seen beside, those of the same members trained
            alone or, for a run of these, in their chain; None or missing where there is none.
        left_out: what of each split is left out, as a stage's record has it.
        world_size: number of processes.
        pace: measures how fast it is.
    """

    def __init__(
        self,
        folder: Path,
        plan: ChainPlan,
        *,
        other: Path | None = None,
        left_out: Mapping[str, Mapping[str, Any]] | None = None,
        world_size: int = 1,
        pace: Pace | None = None,
    ) -> None:
        self.folder, self.chain, self.other = folder, plan, other
        self._pace = pace or Pace()
        self._costs = StepCosts(_timed_in(other, world_size))
        self._losses = Thinned()
        self._earlier = _earlier_stages(folder)
        self._stages = [_planned(stage) for stage in plan.stages]
        self._index: int | None = None
        """Of the stage that is being trained, None between two."""
        now, pid = time.time(), os.getpid()
        self._base = RunStatus(
            mode="individual" if plan.individual else "chain",
            stages=(),
            started=now,
            progressed=now,
            host=machine.host_name(),
            boot=machine.boot_id(),
            pid=pid,
            process_started=machine.process_started(pid),
            world_size=world_size,
        )
        self._left_out = dict(left_out or {})
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="compt status", daemon=True)

    def __enter__(self) -> Follower:
        self._write()
        self._writer.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        error: BaseException | None = exc[1]
        self._ended.set()
        self._writer.join()
        state, reason = _ending(error)
        if self._index is not None and state == "failed":
            self._change(state="failed")
        self._base = replace(self._base, state=state, reason=reason)
        self._write()

    def status(self) -> RunStatus:
        """Return what the run is doing now."""
        stages, index = list(self._stages), self._index
        stage_left, chain_left, is_bound = None, None, False
        if index is not None:
            stage_left, chain_left, is_bound = self._left(index)
            stages[index] = replace(
                stages[index], losses=self._losses.points, seconds_left=stage_left
            )
        return replace(
            self._base,
            stages=tuple(stages),
            seconds_left=chain_left,
            left_is_bound=is_bound,
            written=time.time(),
            left_out=tuple(left_out_lines(self._left_out)),
            memory_bytes=machine.memory_bytes(),
        )

    def _left(self, index: int) -> tuple[float | None, float | None, bool]:
        """Return the seconds left of a stage and of the run, and whether the latter are a bound."""
        now, later = _steps_left(self._stages[index]), map(_steps_left, self._stages[index + 1 :])
        seconds, is_bound = self._pace.seconds_for(now.flops), False
        if seconds is None:
            if (estimate := self._costs.estimate([now])) is None:
                return None, None, False
            seconds, is_bound = self._pace.with_evaluations(estimate.seconds), estimate.is_bound
        if not (after := self._costs.estimate([*later])) or not after.seconds:
            return seconds, seconds, is_bound
        whole = seconds + self._pace.with_evaluations(after.seconds)
        return seconds, whole, is_bound or after.is_bound

    def stage_start(self, plan: StagePlan) -> None:
        """Take over what an interrupted run had known of the stage, and look for its curves."""
        self._index = plan.index
        self._pace.begin()
        earlier = self._earlier.get(plan.name)
        self._losses = Thinned(earlier.losses if earlier else ())
        state = "growing" if plan.grower else "running"
        self._change(state=state, flops_done=0.0)
        self._base = replace(self._base, references=self._references(plan))

    def learning(self, calls: int, loss: float) -> None:
        """Take how far the grower is."""
        plan = self._plan
        flops = min(calls, plan.growth_iters) * plan.batch_size * plan.student_flops
        self._pace.mark(flops, calls * plan.batch_size)
        self._change(
            state="growing",
            growth_calls=calls,
            growth_iters=max(calls, plan.growth_iters),
            flops_done=flops,
            samples_per_second=self._pace.samples_per_second,
        )

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Take how far the stage is; a loss of NaN is where it begins or goes on."""
        plan = self._plan
        samples = iteration * plan.batch_size
        if math.isnan(loss):
            self._pace.begin()
        self._pace.mark(plan.flops_until(iteration), samples)
        seconds, flops, num_samples = self._pace.window
        self._costs.take(plan.name, Timed(num_samples / plan.batch_size, flops, seconds))
        if self._losses.points and self._losses.points[-1][0] > samples:
            self._losses.cut(samples)
        if math.isfinite(loss):
            self._losses.add(samples, loss)
        self._change(
            state="running",
            iteration=iteration,
            flops_done=plan.flops_until(iteration),
            samples_per_second=self._pace.samples_per_second,
        )
        self._base = replace(self._base, **_device_memory())

    def evaluating(self) -> None:
        """Take that the stage is being measured."""
        self._pace.evaluating()
        self._change(state="evaluating")

    def evaluated(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Take the evaluations of the stage so far, of which the last may come a little later."""
        self._pace.evaluated()
        points = [(point["iter"], read_metrics(point["metrics"])) for point in curve]
        self._change(state="running", **_metric(points, self._plan.batch_size))

    def stage_done(self, record: StageRecord) -> None:
        """Take what the stage was and reached."""
        index, earlier = record.index, self._earlier.get(record.name)
        losses = earlier.losses if earlier else ()
        if index == self._index:
            losses = self._losses.points
        stage = replace(self._stages[index], losses=losses, seconds_left=None)
        self._stages[index] = finished_stage(stage, record)
        self._index = None
        self._costs.take(record.name, _timed(record))
        self._left_out |= record.left_out
        self._base = replace(self._base, progressed=time.time())

    @property
    def _plan(self) -> StagePlan:
        assert self._index is not None
        return self.chain.stages[self._index]

    def _change(self, **changes: Any) -> None:
        """Change what is known of the stage that is trained."""
        assert self._index is not None
        self._stages[self._index] = replace(self._stages[self._index], **changes)
        self._base = replace(self._base, progressed=time.time())

    def _references(self, plan: StagePlan) -> tuple[Reference, ...]:
        """Return the curves of the stage's source, and of the same member in the other run."""
        references = []
        if plan.index and not self.chain.individual:
            source = self._stages[plan.index - 1]
            references.append(
                Reference(
                    label=f"source {source.name}",
                    samples=source.samples,
                    **_curves(source),
                )
            )
        other = None if self.other is None else _read_other(self.other, plan)
        return (*references, *([other] if other is not None else []))

    def _write_on(self) -> None:
        while not self._ended.wait(WRITTEN_EVERY):
            self._write()

    def _write(self) -> None:
        # A full disk ends the run where it matters, at its next checkpoint.
        with contextlib.suppress(OSError):
            self.status().write(self.folder / STATUS)


def _planned(stage: StagePlan) -> StageStatus:
    return StageStatus(
        name=stage.name,
        params=stage.params,
        flops=stage.flops,
        iters=stage.iters,
        batch_size=stage.batch_size,
        growth_iters=stage.growth_iters,
    )


def _steps_left(stage: StageStatus) -> Steps:
    """Return the training steps that a stage has before it, those of learned growth included."""
    iters = stage.iters + stage.growth_iters - stage.iteration - stage.growth_calls
    return Steps(max(0, iters), max(0.0, stage.flops - stage.flops_done))


def _timed(record: StageRecord) -> Timed:
    """Return the training steps of a finished stage."""
    flops = record.flops.total - record.flops.growth
    return Timed(record.iters, flops, record.seconds - record.growth_seconds)


def _timed_in(folder: Path | None, world_size: int) -> list[Timed]:
    """Return the finished stages of a run, none where it was another machine's."""
    timed: list[Timed] = []
    if folder is None:
        return timed
    with contextlib.suppress(ComptError):  # a report says what is wrong with a file
        status = RunStatus.read(folder / STATUS)
        if (status.host, status.world_size) == (machine.host_name(), world_size):
            manifests = sorted(folder.glob(f"*/{MANIFEST}"))
            timed += [_timed(StageRecord.read(manifest)) for manifest in manifests]
    return timed


def finished_stage(stage: StageStatus, record: StageRecord) -> StageStatus:
    """Return the status of a stage once it has its record."""
    points = [(point.iteration, point.metrics) for point in record.curve]
    return replace(
        stage,
        state="done",
        params=record.params,
        iteration=record.iters,
        iters=record.iters,
        batch_size=record.batch_size,
        flops=record.flops.total,
        flops_done=record.flops.total,
        samples_per_second=record.samples_per_second,
        seconds=record.seconds,
        **_metric(points, record.batch_size),
    )


def _earlier_stages(folder: Path) -> dict[str, StageStatus]:
    """Return what an earlier run in the folder had known of its stages, by name."""
    try:
        return {stage.name: stage for stage in RunStatus.read(folder / STATUS).stages}
    except ComptError:
        return {}


def _read_other(folder: Path, plan: StagePlan) -> Reference | None:
    """Return the curves of the same member in another run, None where it is not finished there."""
    path = folder / stage_name(plan.index, plan.name) / MANIFEST
    if not path.is_file():
        return None
    try:
        record = StageRecord.read(path)
    except ComptError:  # a report says what is wrong with it
        return None
    if record.params != plan.params:
        return None
    earlier = _earlier_stages(folder).get(plan.name)
    is_alone = record.mode == "individual"
    points = [(point.iteration, point.metrics) for point in record.curve]
    return Reference(
        label=f"{record.name} {'alone' if is_alone else 'in the chain'}",
        samples=record.samples,
        losses=earlier.losses if earlier else (),
        **_metric(points, record.batch_size),
        is_alone=is_alone,
    )


def _metric(points: Sequence[tuple[int, Any]], batch_size: int) -> dict[str, Any]:
    """Return what a stage's status says of its main metric."""
    if not points or (name := main_metric(points[-1][1])) is None:
        return {}
    last = points[-1][1][name]
    values = [(iteration * batch_size, metrics.get(name)) for iteration, metrics in points]
    return {
        "metric": name,
        "chance": last.chance,
        "higher_is_better": last.higher_is_better,
        "unit": last.unit,
        "points": tuple(
            (samples, metric.value)
            for samples, metric in values
            if metric is not None and metric.value is not None
        ),
    }


def _curves(stage: StageStatus) -> dict[str, Any]:
    return {field.name: getattr(stage, field.name) for field in fields(Curves)}


def _device_memory() -> dict[str, Any]:
    """Return what torch has had of the CUDA device, nothing where torch has none."""
    torch = sys.modules.get("torch")  # a run has it; to read a status needs none
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {
        "device_memory_bytes": torch.cuda.max_memory_allocated(),
        "device_total_bytes": torch.cuda.mem_get_info()[1],
    }


def _ending(error: BaseException | None) -> tuple[RunState, str]:
    """Return how a run has ended, and why."""
    if error is None:
        return "finished", ""
    reason = error.one_line if isinstance(error, ComptError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ""
    stopped = isinstance(error, ComptError) and error.exit_code in SIGNALLED
    return ("interrupted" if stopped else "failed"), reason
