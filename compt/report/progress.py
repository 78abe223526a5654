"""Show a run as bars on a terminal, as lines in a file, or not at all."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Protocol

from compt.planning.plans import ChainPlan, StagePlan
from compt.registry.registry import short_name
from compt.report.format import (
    growth_text,
    incident_lines,
    metric_text,
    plain_console,
    tensor_counts,
)
from compt.report.growth import GrowthReport
from compt.report.plan_table import plan_table, plan_text
from compt.report.record import StageRecord

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

SHOWN_METRICS = 3
"""How many of a stage's metrics are printed when it is done."""


class Progress(Protocol):
    """Told of every step of a run."""

    def plan(self, plan: ChainPlan) -> None:
        """Take the plan, before anything is trained.

        A second plan begins another run.
        """

    def note(self, text: str) -> None:
        """Take a line that the user has to know, such as what a resumed run has accepted."""

    def stage_start(self, plan: StagePlan) -> None:
        """Take the stage that begins or goes on."""

    def learning(self, calls: int, loss: float) -> None:
        """Take how often a grower that learns has asked for the loss, and the loss."""

    def grown(self, growth: GrowthReport) -> None:
        """Take how the stage's first weights were grown, now or before it was interrupted."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Take the iteration that is done, with a loss of NaN where there is none yet."""

    def stage_done(self, record: StageRecord) -> None:
        """Take the record of a finished stage, of this run or an earlier one."""


class Silent:
    """Show nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def plan(self, plan: ChainPlan) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def stage_start(self, plan: StagePlan) -> None:
        """Ignore."""

    def learning(self, calls: int, loss: float) -> None:
        """Ignore."""

    def grown(self, growth: GrowthReport) -> None:
        """Ignore."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Ignore."""

    def stage_done(self, record: StageRecord) -> None:
        """Ignore."""


class Terminal:
    """Bars for the chain (in FLOPs) and the stage, or ten lines a stage where no terminal is."""

    def __init__(self) -> None:
        self.console = plain_console()
        self.bars = self._new_bars()
        self.tasks: dict[str, Any] = {}
        self.chain: ChainPlan | None = None
        self.stage: StagePlan | None = None
        self.first = (0.0, 0)
        """When the stage began or went on, and at which iteration."""
        self.tenths = -1
        """How many tenths of the stage have a line."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.bars.stop()

    def _new_bars(self) -> Bars:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def plan(self, plan: ChainPlan) -> None:
        """Print the table of the plan, below whatever an earlier run has left."""
        self.bars.stop()
        self.bars, self.tasks = self._new_bars(), {}
        self.chain = plan
        self.console.print(plan_table(plan))
        self.console.print(plan_text(plan))

    def note(self, text: str) -> None:
        """Print the line."""
        self.console.print(f"note: {text}")

    def stage_start(self, plan: StagePlan) -> None:
        """Add or reset the bars."""
        assert self.chain is not None
        self.stage, self.tenths = plan, -1
        if not self.tasks:
            self.tasks["chain"] = self.bars.add_task("chain", total=self.chain.flops, detail="")
            self.tasks["stage"] = self.bars.add_task("stage", total=plan.iters, detail="")
            self.bars.start()
        self.bars.reset(self.tasks["stage"], total=plan.iters, description=plan.name, detail="")
        start = f"{plan.iters:,} iterations of {plan.batch_size}, {_origin(plan)}"
        self.console.print(f"[bold]{plan.name}[/bold]: {start}")

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Move the bars, or print a line at every tenth of the stage."""
        assert self.chain is not None and self.stage is not None
        detail = _detail(iteration, iters, loss)
        done = sum(stage.flops for stage in self.chain.stages[: self.stage.index])
        self.bars.update(self.tasks["stage"], completed=iteration, detail=detail)
        self.bars.update(
            self.tasks["chain"],
            completed=done + self.stage.flops_until(iteration),
            detail=f"stage {self.stage.index + 1}/{len(self.chain.stages)}",
        )
        if math.isnan(loss):
            self.first = (time.perf_counter(), iteration)
        if self._tenth(iteration, iters):
            self.console.print(f"  {detail}{self._left(iteration, iters)}")

    def learning(self, calls: int, loss: float) -> None:
        """Say beside the bars, or in a line at every tenth, how far the grower is."""
        assert self.stage is not None
        announced = max(calls, self.stage.growth_iters)
        detail = f"growing {_detail(calls, announced, loss)}"
        self.bars.update(self.tasks["stage"], detail=detail)
        if self._tenth(calls, announced):
            self.console.print(f"  {detail}")

    def _tenth(self, done: int, total: int) -> bool:
        """Return whether another tenth is done, for outputs that are no terminal."""
        tenth = 10 * done // max(1, total)
        if self.console.is_terminal or tenth <= self.tenths:
            return False
        self.tenths = tenth
        return True

    def _left(self, iteration: int, iters: int) -> str:
        start, first = self.first
        if iteration <= first or iteration == iters:
            return ""
        seconds = (time.perf_counter() - start) / (iteration - first) * (iters - iteration)
        return f"  {int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def grown(self, growth: GrowthReport) -> None:
        """Print whether growing kept the function, and what became of how many tensors."""
        self.tenths = -1
        self.console.print(f"  growth {growth_text(growth)}")
        self.console.print(f"  tensors: {tensor_counts(growth.counts)}")

    def stage_done(self, record: StageRecord) -> None:
        """Print the stage's first held-out metrics."""
        if record.broken_samples:
            self.console.print(
                f"  training samples that could not be read: {record.broken_samples}; "
                "others took their place"
            )
        if record.stopped:
            self.console.print(f"  {record.stopped}")
        for line in incident_lines(record):
            self.console.print(f"  {line}")
        shown = list(record.metrics.items())[:SHOWN_METRICS]
        metrics = ", ".join(f"{name} {metric_text(metric)}" for name, metric in shown)
        self.console.print(f"  {record.name} done in {record.seconds:.0f} s: {metrics}")


def _origin(plan: StagePlan) -> str:
    if not plan.grower:
        return "from scratch"
    return f"grown by {short_name(plan.grower)}, transfer {short_name(plan.transfer or 'none')}"


def _detail(done: int, total: int, loss: float) -> str:
    return f"{done}/{total}" + ("" if math.isnan(loss) else f"  loss {loss:.3f}")
