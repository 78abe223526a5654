"""What a run tells of its steps, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from compt.planning.plans import ChainPlan, StagePlan
    from compt.report.growth import GrowthReport
    from compt.report.record import StageRecord
    from compt.report.watch.status import RunStatus


class StageProgress(Protocol):
    """Told how the training of a stage gets on."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Take the iteration that is done, with a loss of NaN where there is none yet."""

    def evaluating(self) -> None:
        """Take that an evaluation begins."""

    def evaluated(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Take that it is over, with all evaluations so far, as in a stage's outcome.

        It is called again once the last one is among them.
        """


class Progress(StageProgress, Protocol):
    """Told of every step of a run."""

    def plan(self, plan: ChainPlan) -> None:
        """Take the plan, before anything is trained.

        A second plan begins another run.
        """

    def note(self, text: str) -> None:
        """Take a line that the user has to know, such as what a resumed run has accepted."""

    def follow(self, status: Callable[[], RunStatus]) -> None:
        """Take what returns the state of the run, as the run begins to train."""

    def stage_start(self, plan: StagePlan) -> None:
        """Take the stage that begins or goes on."""

    def learning(self, calls: int, loss: float) -> None:
        """Take how often a grower that learns has asked for the loss, and the loss."""

    def grown(self, growth: GrowthReport) -> None:
        """Take how the stage's first weights were grown, now or before it was interrupted."""

    def stage_done(self, record: StageRecord) -> None:
        """Take the record of a finished stage, of this run or an earlier one."""


class Silent:
    """Show nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def plan(self, plan: ChainPlan) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def follow(self, status: Callable[[], RunStatus]) -> None:
        """Ignore."""

    def stage_start(self, plan: StagePlan) -> None:
        """Ignore."""

    def learning(self, calls: int, loss: float) -> None:
        """Ignore."""

    def grown(self, growth: GrowthReport) -> None:
        """Ignore."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Ignore."""

    def evaluating(self) -> None:
        """Ignore."""

    def evaluated(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Ignore."""

    def stage_done(self, record: StageRecord) -> None:
        """Ignore."""


class Several:
    """Tells several of every step, one after the other."""

    def __init__(self, *listeners: Progress) -> None:
        self.listeners = listeners

    def plan(self, plan: ChainPlan) -> None:
        """Pass it on, as all that follows."""
        for listener in self.listeners:
            listener.plan(plan)

    def note(self, text: str) -> None:
        """Pass on a line."""
        for listener in self.listeners:
            listener.note(text)

    def follow(self, status: Callable[[], RunStatus]) -> None:
        """Pass on what returns the state of the run."""
        for listener in self.listeners:
            listener.follow(status)

    def stage_start(self, plan: StagePlan) -> None:
        """Pass on the stage that begins."""
        for listener in self.listeners:
            listener.stage_start(plan)

    def learning(self, calls: int, loss: float) -> None:
        """Pass on how far a grower is."""
        for listener in self.listeners:
            listener.learning(calls, loss)

    def grown(self, growth: GrowthReport) -> None:
        """Pass on what was grown."""
        for listener in self.listeners:
            listener.grown(growth)

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Pass on how far the stage is."""
        for listener in self.listeners:
            listener.report(iteration, iters, loss)

    def evaluating(self) -> None:
        """Pass on that an evaluation begins."""
        for listener in self.listeners:
            listener.evaluating()

    def evaluated(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Pass on the evaluations."""
        for listener in self.listeners:
            listener.evaluated(curve)

    def stage_done(self, record: StageRecord) -> None:
        """Pass on the record of a finished stage."""
        for listener in self.listeners:
            listener.stage_done(record)
