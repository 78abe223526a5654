"""Show a run as it trains, live on a terminal and as lines of a log elsewhere."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compt.errors import visible
from compt.registry.registry import short_name
from compt.report.format import (
    growth_text,
    incident_lines,
    metric_text,
    plain_console,
    tensor_counts,
)
from compt.report.metrics import read_metrics
from compt.report.plan_table import plan_table, plan_text
from compt.report.progress import Silent
from compt.report.watch.lines import (
    SHOWN_METRICS,
    done_line,
    growing_line,
    grown_line,
    line,
    metrics_line,
    start_line,
    training_line,
)
from compt.report.watch.live import View, glyphs_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from compt.planning.plans import ChainPlan, StagePlan
    from compt.report.growth import GrowthReport
    from compt.report.record import StageRecord
    from compt.report.watch.status import RunStatus, StageStatus

REFRESHES = 1
"""Of the live view, a second."""
LINE_EVERY = 600.0
"""Seconds after which a stage has another line, though no tenth of it is done."""


def on_output() -> Terminal | Lines:
    """Return what shows a run on the standard output, a terminal or none."""
    console = plain_console()
    is_live = console.is_terminal and not console.is_dumb_terminal
    return Terminal(console) if is_live else Lines(console)


class Terminal(Silent):
    """A view at the foot of the terminal that stays true, below lines on what has happened."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status: Callable[[], RunStatus] | None = None
        self._live: Live | None = None
        self._moved: list[tuple[logging.StreamHandler[Any], Any]] = []
        """Handlers of loggers that write through the view, with where they wrote before."""

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def plan(self, plan: ChainPlan) -> None:
        """Print the table of the plan, below whatever an earlier run has left."""
        self._stop()
        _print_plan(self.console, plan)

    def note(self, text: str) -> None:
        """Print the line."""
        self.console.print(f"note: {visible(text)}", markup=False)

    def follow(self, status: Callable[[], RunStatus]) -> None:
        """Show what the run is doing from here on."""
        from rich.live import Live

        self._stop()
        self._status = status
        self._live = Live(
            get_renderable=self._view,
            console=self.console,
            refresh_per_second=REFRESHES,
            transient=True,
            vertical_overflow="crop",
        )
        streams = sys.stdout, sys.stderr
        self._live.start()
        self.console.show_cursor(True)  # rich hides it, and kill -9 would leave it hidden
        self._moved = _move_handlers(dict(zip(streams, (sys.stdout, sys.stderr), strict=True)))
        _spare_forked_processes()

    def stage_start(self, plan: StagePlan) -> None:
        """Print what begins."""
        origin = "from scratch"
        if plan.grower:
            transfer = short_name(plan.transfer or "none")
            origin = f"grown by {short_name(plan.grower)}, transfer {transfer}"
        start = f"{plan.iters:,} iterations of {plan.batch_size}, {origin}"
        self.console.print(f"[bold]{plan.name}[/bold]: {start}")

    def grown(self, growth: GrowthReport) -> None:
        """Print whether growing kept the function, and what became of how many tensors."""
        self._print(f"growth {growth_text(growth)}")
        self._print(f"tensors: {tensor_counts(growth.counts)}")

    def stage_done(self, record: StageRecord) -> None:
        """Print the stage's first held-out metrics."""
        for text in _told_at_the_end(record):
            self._print(text)
        shown = list(record.metrics.items())[:SHOWN_METRICS]
        metrics = ", ".join(f"{name} {metric_text(metric)}" for name, metric in shown)
        self._print(f"{record.name} done in {record.seconds:.0f} s: {metrics}")

    def _print(self, text: str) -> None:
        self.console.print(f"  {text}", markup=False)

    def _view(self) -> RenderableType:
        from rich.console import Group

        assert self._status is not None
        view = View(self._status(), self.console.width, glyphs_of(self.console))
        return Group(*view.lines(time.time()))

    def _stop(self) -> None:
        if self._live is not None:
            for handler, stream in self._moved:
                handler.setStream(stream)
            self._live.stop()
            self._live, self._moved = None, []


class Lines(Silent):
    """Lines of ``key=value`` after the table of the plan; see :mod:`compt.report.watch.lines`.

    A stage has one at every tenth of its iterations, and at least one every ten minutes.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status: Callable[[], RunStatus] | None = None
        self._tenths, self._printed_at = -1, 0.0
        self._num_evaluations = 0

    def plan(self, plan: ChainPlan) -> None:
        """Print the table of the plan."""
        _print_plan(self.console, plan)

    def note(self, text: str) -> None:
        """Print the line."""
        self._print(line(note=visible(text)))

    def follow(self, status: Callable[[], RunStatus]) -> None:
        """Take where the state of the run is from."""
        self._status = status

    def stage_start(self, plan: StagePlan) -> None:
        """Print what begins."""
        self._tenths, self._num_evaluations = -1, 0
        self._print(start_line(plan))

    def learning(self, calls: int, loss: float) -> None:
        """Print how far the grower is."""
        stage = self._now()[1]
        if self._is_due(calls, stage.growth_iters):
            self._print(growing_line(stage, loss))

    def grown(self, growth: GrowthReport) -> None:
        """Print what was grown."""
        self._tenths = -1
        self._print(grown_line(self._now()[1].name, growth))

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Print how far the stage is."""
        if self._is_due(iteration, iters):
            self._print(training_line(*self._now(), None if math.isnan(loss) else loss))

    def evaluated(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Print what the last evaluation has measured, once."""
        if len(curve) > self._num_evaluations:
            point, stage = curve[-1], self._now()[1]
            self._print(metrics_line(stage, point["iter"], read_metrics(point["metrics"])))
        self._num_evaluations = len(curve)

    def stage_done(self, record: StageRecord) -> None:
        """Print what the stage was and reached."""
        for text in incident_lines(record):
            self._print(line(stage=record.name, event="incident", text=text))
        self._print(done_line(record))

    def _now(self) -> tuple[RunStatus, StageStatus]:
        assert self._status is not None
        status = self._status()
        assert status.current is not None
        return status, status.current

    def _is_due(self, done: int, total: int) -> bool:
        """Return whether a line is due."""
        tenths, now = 10 * done // max(1, total), time.monotonic()
        if tenths <= self._tenths and now - self._printed_at < LINE_EVERY:
            return False
        self._tenths, self._printed_at = tenths, now
        return True

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False)


def _print_plan(console: Console, plan: ChainPlan) -> None:
    console.print(plan_table(plan))
    console.print(plan_text(plan))


def _told_at_the_end(record: StageRecord) -> list[str]:
    """Return what is to be known of a finished stage beside its metrics."""
    lines = incident_lines(record)
    if record.stopped:
        lines.insert(0, record.stopped)
    if record.broken_samples:
        unreadable = f"training samples that could not be read: {record.broken_samples}"
        lines.insert(0, f"{unreadable}; others took their place")
    return lines


def _move_handlers(streams: Mapping[Any, Any]) -> list[tuple[logging.StreamHandler[Any], Any]]:
    """Let loggers that write to some streams write to others, and return those with the old ones.

    A handler holds the stream that was the standard one when it was made, as that of transformers
    does, and what it writes there would tear the view.
    """
    moved = []
    named = logging.Logger.manager.loggerDict.values()
    for logger in (logging.getLogger(), *named):
        for handler in getattr(logger, "handlers", ()):
            is_file = isinstance(handler, logging.FileHandler)
            if isinstance(handler, logging.StreamHandler) and not is_file:
                stream = handler.stream
                if stream in streams:
                    handler.setStream(streams[stream])
                    moved.append((handler, stream))
    return moved


_spared = False


def _spare_forked_processes() -> None:
    """Let processes that are forked from here on write straight to the terminal.

    What they printed, as a warning of a process that reads samples, would draw the view a second
    time, or wait for ever for a lock that was held as they began.
    """
    global _spared
    if not _spared and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_write_straight)
        _spared = True


def _write_straight() -> None:
    sys.stdout, sys.stderr = _straight(sys.stdout), _straight(sys.stderr)


def _straight(stream: Any) -> Any:
    from rich.file_proxy import FileProxy

    return stream.rich_proxied_file if isinstance(stream, FileProxy) else stream
