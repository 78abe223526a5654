"""Draw what a run is doing for a terminal of any width, with or without colours and Unicode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.report.format import clock, metric_text, size
from compt.report.watch.sparkline import ASCII, BLOCKS, limits, sparkline
from compt.report.watch.status import Curves, Points, Reference, RunStatus, StageState, StageStatus

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MOST_LEFT_OUT = 2
"""Lines on what was left out of the data."""
LABEL_WIDTH = 22
VALUE_WIDTH = 8
STUCK_AFTER = 600.0
"""Seconds without progress after which a running stage says so."""
STATES: Mapping[StageState, tuple[str, str, str]] = {
    "done": ("✓", "+", "green"),
    "running": ("▶", ">", "bold cyan"),
    "growing": ("▲", "^", "bold cyan"),
    "evaluating": ("▶", ">", "bold cyan"),
    "failed": ("✗", "!", "bold red"),
    "waiting": ("·", ".", "dim"),
}
"""The character of each state, the one where a console has ASCII alone, and their style."""
STOPPED_STYLE = "bold yellow"


@dataclass(frozen=True)
class Glyphs:
    """The characters that a view is drawn with."""

    states: Mapping[StageState, str]
    stopped: str
    arrow: str
    bar: str
    rest: str
    levels: str
    ellipsis: str


UNICODE = Glyphs(
    {state: character for state, (character, _, _) in STATES.items()},
    stopped="■",
    arrow="→",
    bar="━",
    rest="╌",
    levels=BLOCKS,
    ellipsis="…",
)
PLAIN = Glyphs(
    {state: character for state, (_, character, _) in STATES.items()},
    stopped="=",
    arrow="->",
    bar="#",
    rest="-",
    levels=ASCII,
    ellipsis="~",
)


def glyphs_of(console: Console) -> Glyphs:
    """Return the characters that a console can show."""
    return PLAIN if console.options.ascii_only else UNICODE


class View:
    """Draws a run in so many columns, never more, in a dozen lines for a chain of any length."""

    def __init__(self, status: RunStatus, width: int, glyphs: Glyphs = UNICODE) -> None:
        self.status, self.width, self.glyphs = status, width, glyphs

    def lines(self, now: float, *, is_alive: bool = True) -> list[Text]:
        """Return the lines.

        Args:
            now: Unix time.
            is_alive: whether the run is going on; else what only holds then is left out.
        """
        lines = [*self._stage_row(is_alive)]
        stage = self.status.current
        if stage is not None:
            lines += self._bars(stage, now if is_alive else None)
            lines += self._curves(stage)
        if is_alive:
            lines += self._machine()
        lines += self._left_out()
        return [self._fitted(line) for line in lines]

    def _stage_row(self, is_alive: bool) -> Iterator[Text]:
        """Yield the stages in order, in as many lines as they need."""
        line = _text()
        for stage in self.status.stages:
            glyph, style = self.glyphs.states[stage.state], STATES[stage.state][2]
            if not is_alive and stage.state in ("growing", "running", "evaluating"):
                glyph, style = self.glyphs.stopped, STOPPED_STYLE
            cell = f"{glyph} {stage.name}"
            if detail := _detail(stage, is_alive):
                cell += f" {detail}"
            arrow = f" {self.glyphs.arrow} " if line else ""
            if line and len(line) + len(arrow) + len(cell) + 2 > self.width:
                line.append(f" {self.glyphs.arrow}", "dim")
                yield line
                line, arrow = _text(), ""
            line.append(arrow, "dim").append(cell, style)
        yield line

    def _bars(self, stage: StageStatus, now: float | None) -> Iterator[Text]:
        """Yield how much of the run and of its stage is done, and what is left."""
        status = self.status
        kind = "all" if status.mode == "individual" else "chain"
        label_width = min(LABEL_WIDTH, max(len(kind), len(stage.name)))
        share = stage.flops_done / stage.flops if stage.flops else 0.0
        most = "at most " if status.left_is_bound else ""
        rows = [(kind, status.share, status.seconds_left, most, "")]
        rows.append((stage.name, share, stage.seconds_left, "", _speed(stage)))
        bar_width = max(10, min(40, self.width - label_width - 46))
        for label, done, seconds, most, more in rows:
            filled = round(done * bar_width)
            line = _text(f"{label[:label_width]:<{label_width}} ", "bold")
            line.append(self.glyphs.bar * filled, "cyan")
            line.append(self.glyphs.rest * (bar_width - filled), "dim")
            line.append(f" {100 * done:3.0f} %")
            if now is not None and seconds is not None:
                left = seconds - max(0.0, now - status.written)
                line.append(f"  {most}{clock(left)} left" if left > 0 else "")
            line.append(more)
            yield line
        if now is not None and now - status.progressed > STUCK_AFTER:
            since = clock(now - status.progressed)
            yield _text(f"no progress for {since}, while {stage.state}", "bold yellow")

    def _curves(self, stage: StageStatus) -> Iterator[Text]:
        """Yield the loss and the main metric as sparklines, beside those of other stages."""
        now = stage.iteration * stage.batch_size
        others = [_Column.of_reference(reference, now) for reference in self.status.references]
        columns = [_Column.of_stage(stage), *others]
        metric = next(filter(None, (column.curves.metric for column in columns)), None)
        longest = min(LABEL_WIDTH, self.width // 3)
        label_width = min(longest, max(len("loss"), len(metric or ""))) + 1
        width = max(VALUE_WIDTH + 5, (self.width - label_width) // len(columns) - 1)
        losses = [column.curves.losses for column in columns]
        points = [c.curves.points if c.curves.metric == metric else () for c in columns]
        if len(columns) > 1 and any((*losses, *points)):
            labels = (self._cut(f"  {column.label}", width) for column in columns)
            yield _text(" " * label_width).append(
                "".join(f"{label:<{width + 1}}" for label in labels), "dim"
            )
        ends = [column.samples for column in columns]
        for label, curves in (("loss", losses), (metric or "", points)):
            if label and any(curves):
                label = self._cut(label, label_width - 1, from_the_left=True)
                values = [
                    column.value(curve, is_loss=curves is losses)
                    for column, curve in zip(columns, curves, strict=True)
                ]
                drawn = self._sparklines(curves, values, ends, width - VALUE_WIDTH - 1)
                yield _text(f"{label:<{label_width}}", "bold").append(drawn)

    def _sparklines(
        self, curves: Sequence[Points], values: Sequence[str], ends: Sequence[int], width: int
    ) -> Text:
        """Draw curves of one scale side by side, each behind a value; the first stands out."""
        line, scale = _text(), limits(curves)
        for index, (curve, value, end) in enumerate(zip(curves, values, ends, strict=True)):
            row = sparkline(curve, end, width, scale, self.glyphs.levels)
            line.append(f"{value:>{VALUE_WIDTH}} ")
            line.append(f"{row:<{width}} ", "dim" if index else "cyan")
        return line

    def _machine(self) -> Iterator[Text]:
        """Yield the memory that the run takes, and its processes where they are several."""
        status, parts = self.status, []
        if status.memory_bytes is not None:
            parts.append(size(status.memory_bytes))
        if status.device_memory_bytes is not None:
            total = status.device_total_bytes
            of_total = f" of {size(total)}" if total else ""
            parts.append(f"GPU at most {size(status.device_memory_bytes)}{of_total}")
        if parts:
            processes = f" (the first of {status.world_size} processes)"
            more = processes if status.world_size > 1 else ""
            yield _text("memory ", "bold").append(f"{', '.join(parts)}{more}")

    def _left_out(self) -> Iterator[Text]:
        """Yield what was left out of the data, the rest as a number."""
        lines = self.status.left_out
        for line in lines[:MOST_LEFT_OUT]:
            yield _text(line, "yellow")
        if lines[MOST_LEFT_OUT:]:
            yield _text(f"and {len(lines) - MOST_LEFT_OUT} more", "yellow")

    def _cut(self, text: str, width: int, *, from_the_left: bool = False) -> str:
        """Return as much of a text as there is room for; the end of a metric's name tells most."""
        if len(text) <= width:
            return text
        if from_the_left:
            return self.glyphs.ellipsis + text[len(text) - width + 1 :]
        return text[: width - 1] + self.glyphs.ellipsis

    def _fitted(self, line: Text) -> Text:
        """Cut a line to the width, in characters that the terminal knows."""
        if self.glyphs is PLAIN:
            line.plain = line.plain.encode("ascii", "replace").decode()
        line.rstrip()
        if len(line) > self.width:
            line.right_crop(len(line) - self.width + 1)
            line.append(self.glyphs.ellipsis)
        return line


@dataclass(frozen=True)
class _Column:
    """The curves of one stage."""

    label: str
    curves: Curves
    samples: int
    """At the right end."""
    until: float = math.inf
    """Samples up to which the value is shown."""

    @classmethod
    def of_stage(cls, stage: StageStatus) -> _Column:
        return cls(stage.name, stage, stage.samples)

    @classmethod
    def of_reference(cls, reference: Reference, now: float) -> _Column:
        if reference.is_alone:
            return cls(f"{reference.label}, by now", reference, reference.samples, now)
        return cls(reference.label, reference, reference.samples)

    def value(self, points: Points, *, is_loss: bool) -> str:
        """Write the last value, '' where there is none."""
        values = [value for samples, value in points if samples <= self.until]
        if not values:
            return ""
        if is_loss:
            return f"{values[-1]:.4g}"
        return metric_text(self.curves.metric_value(values[-1]), with_chance=False)


def _text(text: str = "", style: str = "") -> Text:
    from rich.text import Text  # not above: a log of plain lines needs none

    return Text(text, style="", no_wrap=True) if not style else Text.assemble((text, style))


def _detail(stage: StageStatus, is_alive: bool) -> str:
    """Return what the row of stages says of one, '' where its glyph says all."""
    if stage.state == "waiting":
        return ""
    if stage.state == "done":
        return _Column.of_stage(stage).value(stage.points, is_loss=False)
    if stage.state == "growing":
        calls = f" {stage.growth_calls}/{stage.growth_iters}" if stage.growth_iters else ""
        return f"growing{calls}" if is_alive else "not grown"
    at = f"{stage.iteration}/{stage.iters}"
    if stage.state == "failed" or not is_alive:
        return f"at {at}"
    return f"{at} evaluating" if stage.state == "evaluating" else at


def _speed(stage: StageStatus) -> str:
    rate = stage.samples_per_second
    if rate is None:
        return ""
    return f"  {rate:,.0f} samples/s" if rate >= 10 else f"  {rate:.2g} samples/s"
