"""Draw the charts of a page with Bokeh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compt.report.format import (
    growth_text,
    is_share,
    metric_label,
    metric_text,
    quantity,
    unit_of,
)
from compt.report.html.figures import add_tips, draw_level, new_figure
from compt.report.metrics import MetricValue

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

    from compt.report.html.stages import Stage
    from compt.report.html.styles import RunStyle


class Charts:
    """Draws the charts of some stages, in the colours of their members and runs."""

    def __init__(
        self,
        stages: Sequence[Stage],
        colours: Mapping[str, str],
        styles: Mapping[str, RunStyle],
    ) -> None:
        self.stages, self.colours, self.styles = stages, colours, styles

    def quality(self, name: str) -> Figure | None:
        """Draw a main metric against compute, None where no member has it.

        With the level that each source had reached, and chance.
        """
        metrics = [_final(stage, name) for stage in self.stages]
        metric = next((value for value in metrics if value is not None), None)
        if metric is None:
            return None
        scale = 100 if is_share(metric) else 1
        points = [flops for stage in self.stages for flops, _ in _curve(stage, name)]
        unit, prefix = unit_of(points)
        figure = new_figure(
            f"training compute ({prefix}FLOP), cumulative",
            metric_label(name, metric),
            [flops / unit for flops in points],
        )
        levels = [self._source_level(figure, stage, name, unit, scale) for stage in self.stages]
        curves = [self._curve(figure, stage, name, unit, scale) for stage in self.stages]
        add_tips(figure, levels, ["its source, @source, had @value"])
        add_tips(figure, curves, ["value: @value", "compute: @compute"])
        if metric.chance is not None and points:
            draw_level(figure, [flops / unit for flops in points], scale * metric.chance)
        return figure

    def _curve(self, figure: Figure, stage: Stage, name: str, unit: float, scale: int) -> Any:
        points = _curve(stage, name)
        if not points:
            return None
        metric = _final(stage, name) or MetricValue(None)
        values = [
            metric_text(replace(metric, value=value), with_chance=False) for _, value in points
        ]
        columns: dict[str, Any] = {
            "x": [flops / unit for flops, _ in points],
            "y": [value * scale for _, value in points],
            "value": values,
            "compute": [quantity(flops, "FLOP") for flops, _ in points],
        }
        return self._line(figure, stage, columns, has_markers=True)

    def _source_level(
        self, figure: Figure, stage: Stage, name: str, unit: float, scale: int
    ) -> Any:
        """Draw the source's last value along a stage, as what it has to improve on."""
        points = _curve(stage, name)
        source = _final(stage.source, name) if stage.source else None
        if not points or source is None or source.value is None:
            return None
        assert stage.source is not None and stage.member is not None
        columns: dict[str, Any] = {
            "x": [stage.member.ancestor_flops / unit, points[-1][0] / unit],
            "y": [source.value * scale] * 2,
            "value": [metric_text(source)] * 2,
            "source": [stage.source.name] * 2,
        }
        look: dict[str, Any] = {"line_dash": "dotted", "line_width": 1.5, "line_alpha": 0.9}
        return self._line(figure, stage, columns, **look)

    def losses(self) -> Figure | None:
        """Draw the loss of the task against samples, with growth marked, None without logs."""
        if not any(stage.losses.points for stage in self.stages):
            return None
        ends = [float(stage.samples_before + stage.samples) for stage in self.stages]
        unit, prefix = unit_of(ends)
        figure = new_figure(
            f"samples{f' ({prefix})' if prefix else ''}, cumulative",
            "loss of the task, in training",
            [end / unit for end in ends],
            may_be_log=False,
        )
        marks = [self._growth_mark(figure, stage, unit) for stage in self.stages]
        lines = [self._loss(figure, stage, unit) for stage in self.stages]
        add_tips(figure, marks, ["growth: @text"])
        tips = ["iteration: @iteration{0,0}", "loss of the task: @y{0.0000}"]
        add_tips(figure, lines, [*tips, "loss to the teacher: @transfer"])
        return figure

    def _loss(self, figure: Figure, stage: Stage, unit: float) -> Any:
        points = stage.losses.points
        if not points:
            return None
        samples = [stage.samples_before + p.iteration * stage.batch_size for p in points]
        columns: dict[str, Any] = {
            "x": [number / unit for number in samples],
            "y": [point.task for point in points],
            "iteration": [point.iteration for point in points],
            "transfer": [_number(point.transfer) for point in points],
        }
        return self._line(figure, stage, columns)

    def _growth_mark(self, figure: Figure, stage: Stage, unit: float) -> Any:
        """Mark where a stage was grown."""
        if stage.source is None or stage.growth is None:
            return None
        from bokeh.models import ColumnDataSource

        data = {
            "x": [stage.samples_before / unit],
            "text": [f"{stage.growth.grower or 'grown'}: {growth_text(stage.growth)}"],
        }
        mark = figure.vspan(
            x="x",
            source=ColumnDataSource(data),
            line_color=self.colours[stage.name],
            line_dash="dashed",
            line_width=1.5,
        )
        return _named(mark, stage)

    def _line(
        self,
        figure: Figure,
        stage: Stage,
        columns: dict[str, Any],
        *,
        has_markers: bool = False,
        **look: Any,
    ) -> Any:
        """Draw a line of a stage, and return what of it shows tips."""
        from bokeh.models import ColumnDataSource

        colour, style = self.colours[stage.name], self.styles[stage.run.label]
        source = ColumnDataSource(columns)
        line = {"line_width": 2, "line_dash": style.dash, **look}
        drawn = _named(figure.line("x", "y", line_color=colour, source=source, **line), stage)
        if has_markers or len(columns["x"]) == 1:
            filled = {"fill_color": colour if style.is_filled else None, "line_color": colour}
            points = {"marker": style.marker, "size": 8, "source": source}
            drawn = _named(figure.scatter("x", "y", **points, **filled), stage)
        return drawn


def _named(renderer: Any, stage: Stage) -> Any:
    """Return what was drawn of a stage, after naming it for tips and for the page's legend."""
    renderer.name = f"{stage.name} ({stage.run.label})"
    renderer.tags = [stage.name, stage.run.label]
    return renderer


def _final(stage: Stage, name: str) -> MetricValue | None:
    """Return a stage's last value of its main metric, None where that is another."""
    if stage.member is None or stage.member.record.main_metric != name:
        return None
    return stage.member.record.main


def _curve(stage: Stage, name: str) -> list[tuple[float, float]]:
    """Return a stage's measured points, none while it is not finished."""
    return [] if stage.member is None else stage.member.curve(name)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
