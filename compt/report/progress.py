"""What a run shows: bars on a terminal, lines where the output is a file, nothing by default."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Protocol

from compt.planning.planner import ChainPlan, StagePlan


class Progress(Protocol):
    """Told of every step of a chain."""

    def plan(self, plan: ChainPlan) -> None:
        """The plan, before anything is trained."""

    def stage_start(self, plan: StagePlan) -> None:
        """A stage begins or goes on."""

    def learning(self, calls: int, loss: float) -> None:
        """A grower that learns has asked for the loss so many times."""

    def grown(self, growth: Mapping[str, Any]) -> None:
        """The stage's first weights were grown, now or before it was interrupted."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """The iteration that is done; the loss is NaN where there is none yet."""

    def stage_done(self, manifest: Mapping[str, Any]) -> None:
        """A stage is finished, now or in an earlier run."""


class Silent:
    """Show nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def plan(self, plan: ChainPlan) -> None:
        """Ignore."""

    def stage_start(self, plan: StagePlan) -> None:
        """Ignore."""

    def learning(self, calls: int, loss: float) -> None:
        """Ignore."""

    def grown(self, growth: Mapping[str, Any]) -> None:
        """Ignore."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Ignore."""

    def stage_done(self, manifest: Mapping[str, Any]) -> None:
        """Ignore."""


class Terminal:
    """Bars for the chain (in FLOPs) and the stage on a terminal, about ten lines a stage
    elsewhere.
    """

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from compt.report.format import plain_console

        self.console = plain_console()
        self.bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, Any] = {}
        self.chain: ChainPlan | None = None
        self.stage: StagePlan | None = None
        self.begun = (0.0, 0)
        self.shown = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.bars.stop()

    def plan(self, plan: ChainPlan) -> None:
        """Print the table of the plan."""
        from compt.report.format import plan_table, plan_text

        self.chain = plan
        self.console.print(plan_table(plan))
        self.console.print(plan_text(plan))

    def stage_start(self, plan: StagePlan) -> None:
        """Add or reset the bars."""
        assert self.chain is not None
        self.stage, self.shown = plan, -1
        if not self.tasks:
            self.tasks["chain"] = self.bars.add_task("chain", total=self.chain.flops, detail="")
            self.tasks["stage"] = self.bars.add_task("stage", total=plan.iters, detail="")
            self.bars.start()
        self.bars.reset(self.tasks["stage"], total=plan.iters, description=plan.name, detail="")
        grown = (
            f"grown by {plan.grower}, transfer {plan.transfer or 'none'}"
            if plan.grower
            else "from scratch"
        )
        self.console.print(
            f"[bold]{plan.name}[/bold]: {plan.iters:,} iterations of {plan.batch_size}, {grown}"
        )

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Move the bars, or print a line at every tenth of the stage."""
        assert self.chain is not None and self.stage is not None
        detail = _detail(iteration, iters, loss)
        before = sum(s.flops for s in self.chain.stages[: self.stage.index])
        self.bars.update(self.tasks["stage"], completed=iteration, detail=detail)
        self.bars.update(
            self.tasks["chain"],
            completed=before + self.stage.flops_until(iteration),
            detail=f"stage {self.stage.index + 1}/{len(self.chain.stages)}",
        )
        if math.isnan(loss):
            self.begun = (time.perf_counter(), iteration)
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
        """Whether another tenth is done, for outputs that are no terminal."""
        tenth = 10 * done // max(1, total)
        if self.console.is_terminal or tenth <= self.shown:
            return False
        self.shown = tenth
        return True

    def _left(self, iteration: int, iters: int) -> str:
        start, first = self.begun
        if iteration <= first or iteration == iters:
            return ""
        seconds = (time.perf_counter() - start) / (iteration - first) * (iters - iteration)
        return f"  {int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def grown(self, growth: Mapping[str, Any]) -> None:
        """Print what growing kept."""
        from compt.report.format import growth_text

        self.shown = -1
        self.console.print(f"  growth {growth_text(growth)}")

    def stage_done(self, manifest: Mapping[str, Any]) -> None:
        """Print the stage's first held-out figures."""
        from compt.report.format import figure_text

        if broken := manifest.get("broken_samples"):
            self.console.print(
                f"  training samples that could not be read: {broken}; others took their place"
            )
        if stopped := manifest.get("stopped"):
            self.console.print(f"  {stopped}")
        figures = ", ".join(
            f"{k} {figure_text(v)}" for k, v in list(manifest["metrics"].items())[:3]
        )
        self.console.print(f"  {manifest['name']} done in {manifest['seconds']:.0f} s: {figures}")


def _detail(done: int, total: int, loss: float) -> str:
    return f"{done}/{total}" + ("" if math.isnan(loss) else f"  loss {loss:.3f}")
