"""Make Bokeh's figures alike, and turn them into JSON that a page embeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compt.report.plots import LOG_RANGE

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

GREY = "#8A8A8A"
"""Seen on black and on white."""
HEIGHT = 420
MOST_DECADES = 4
"""Of a logarithmic axis with more than one label a decade."""
TOOLS = "pan,box_zoom,wheel_zoom,zoom_in,zoom_out,reset,save"


def as_items(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return figures as what Bokeh embeds, by the id of the element that each goes into.

    The same figures give the same items: Bokeh counts its objects through all of a process, which
    would make two pages of one report differ.
    """
    from bokeh.embed import json_item

    return {name: _renumbered(json_item(figure, name), {}) for name, figure in figures.items()}


def _renumbered(content: Any, ids: dict[str, str]) -> Any:
    """Return JSON with the ids of Bokeh's objects counted from 1."""
    if isinstance(content, list):
        return [_renumbered(item, ids) for item in content]
    if not isinstance(content, dict):
        return content
    return {
        key: ids.setdefault(value, f"p{len(ids) + 1}")
        if key in ("id", "root_id") and isinstance(value, str)
        else _renumbered(value, ids)
        for key, value in content.items()
    }


def new_figure(
    x_label: str, y_label: str, x: Sequence[float], *, may_be_log: bool = True
) -> Figure:
    """Return an empty figure for these values of x."""
    from bokeh.models import PlainText
    from bokeh.plotting import figure

    is_log = may_be_log and _is_log(x)
    result = figure(
        height=HEIGHT,
        sizing_mode="stretch_width",
        x_axis_type="log" if is_log else "linear",
        tools=TOOLS,
        toolbar_location="above",
        # A page that is scrolled must not zoom what passes under the pointer.
        active_scroll=None,
        active_drag=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
    )
    result.toolbar.logo = None
    # Dividers stand between groups of tools, also of those that are not shown.
    result.toolbar.stylesheets = [
        ".bk-divider { display: none; } @media print { :host { display: none; } }"
    ]
    result.y_range.only_visible = True
    # Plain: text between dollars would be taken for TeX, for which the page has no typesetter.
    result.xaxis.axis_label = PlainText(text=x_label)
    result.yaxis.axis_label = PlainText(text=y_label)
    result.axis.axis_label_text_font_style = "normal"
    result.axis.axis_label_text_font_size = "14px"
    result.axis.major_label_text_font_size = "13px"
    result.axis.minor_tick_line_color = None
    if is_log:
        _label_log_axis(result, x)
    else:
        result.x_range.start = 0
    _add_ring(result)
    return result


def _add_ring(figure: Figure) -> None:
    """Add the ring around the point that is read below a plot, which the page's script moves."""
    from bokeh.models import ColumnDataSource

    place = ColumnDataSource({"x": [], "y": []})
    look: dict[str, Any] = {"size": 18, "fill_color": None, "line_color": GREY, "line_width": 3}
    figure.scatter("x", "y", source=place, name="reading", level="overlay", **look)


def _label_log_axis(figure: Figure, x: Sequence[float]) -> None:
    """Write plain numbers at 1, 2 and 5 of every decade, or at decades where there are many."""
    from bokeh.models import BasicTickFormatter, FixedTicker

    figure.xaxis.formatter = BasicTickFormatter(use_scientific=False, precision=4)
    positive = [value for value in x if value > 0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    if last - first <= MOST_DECADES:
        decades = range(first - 1, last + 1)
        ticks = [mantissa * 10.0**decade for decade in decades for mantissa in (1, 2, 5)]
        figure.xaxis.ticker = figure.xgrid.ticker = FixedTicker(ticks=ticks)


def add_tips(figure: Figure, renderers: Sequence[Any], lines: Sequence[str]) -> None:
    """Let renderers, but for those that are None, show lines of text below their names."""
    from bokeh.models import HoverTool

    # Without labels, as the colour that Bokeh gives them is too pale to read.
    tips = [("", line) for line in ("$name", *lines)]
    drawn = [renderer for renderer in renderers if renderer is not None]
    figure.add_tools(HoverTool(renderers=drawn, tooltips=tips, visible=False))


def draw_level(figure: Figure, x: Sequence[float], value: float) -> None:
    """Draw what guessing reaches."""
    from bokeh.models import Label

    figure.line([min(x), max(x)], [value] * 2, line_color=GREY, line_dash="dotted", line_width=2)
    # At the end, where lines have left it behind.
    place: dict[str, Any] = {"x": max(x), "y": value, "y_offset": 2, "text_align": "right"}
    figure.add_layout(Label(text="chance", text_font_size="12px", **place))


def _is_log(numbers: Sequence[float]) -> bool:
    positive = [number for number in numbers if number > 0]
    return bool(positive) and max(positive) / min(positive) > LOG_RANGE
