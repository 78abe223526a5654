"""Write a report as one HTML file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.report.html.chain import draw
from compt.report.html.charts import Charts
from compt.report.html.coverage import MEANINGS, coverages
from compt.report.html.facts import all_facts
from compt.report.html.figures import as_items
from compt.report.html.stages import Stage, read_stages
from compt.report.html.styles import member_colours, run_styles
from compt.report.html.suites import read_suites
from compt.report.html.tables import (
    CHARGES,
    Table,
    costs,
    energy_note,
    gains,
    held_out,
    side_by_side,
)
from compt.report.notes import left_out_notes
from compt.report.speed import speed_note
from compt.report.terminal import family_text, open_points

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

    from compt.report.comparison import Comparison, Report

HERE = Path(__file__).parent


def html_page(report: Report) -> str:
    """Return a report as one HTML page, which needs no other file and no network.

    The logs of the runs' folders are read for it. The same report gives the same page.

    Raises:
        ImportError: Bokeh is not installed.
    """
    stages = read_stages(report.runs)
    by_run = [[stage for stage in stages if stage.run is run] for run in report.runs]
    colours, styles = member_colours(stages), run_styles(report.runs)
    quality, losses = _figures(report, Charts(stages, colours, styles))
    text: str = _template().render(
        title=_title(report),
        comparisons=[(family_text(c), list(open_points(c))) for c in report.comparisons],
        side_by_side=side_by_side(report.runs),
        drawings=[draw(group, colours) for group in by_run],
        colours=colours,
        styles=styles,
        quality=list(quality),
        has_losses="losses" in losses,
        loss_notes=_loss_notes(stages),
        gains=_present(_gain_tables(report, by_run)),
        charges=CHARGES,
        costs=costs(report.runs),
        energy_note=energy_note(report.runs),
        speed_note=speed_note(report.runs),
        suites=read_suites(by_run),
        held_out=_present(map(held_out, report.runs)),
        coverages=coverages(stages),
        meanings=MEANINGS,
        left_out=[line for run in report.runs for line in left_out_notes(run)],
        notes=_other_notes(report),
        facts=all_facts(report.runs),
        css=_text("style.css"),
        dark_css=_text("dark.css"),
        script=_text("page.js"),
        bokeh=_bokeh(),
        items=_as_script(as_items({**quality, **losses})),
    )
    return text


def _figures(report: Report, charts: Charts) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Return the charts of each main metric, and that of the losses, by id."""
    names = [m.record.main_metric for run in report.runs for m in run.members if m.record.main]
    drawn = [charts.quality(name) for name in dict.fromkeys(names) if name is not None]
    quality = {f"quality-{i + 1}": figure for i, figure in enumerate(drawn) if figure}
    losses = charts.losses()
    return quality, {} if losses is None else {"losses": losses}


def _gain_tables(report: Report, by_run: Sequence[Sequence[Stage]]) -> Iterable[Table | None]:
    comparisons: dict[str, Comparison] = {c.chain: c for c in report.comparisons}
    for group in by_run:
        if group[0].run.mode == "chain":
            yield gains(group, comparisons.get(group[0].run.label))


def _present(tables: Iterable[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]


def _title(report: Report) -> str:
    names = ", ".join(Path(run.path).name for run in report.runs)
    return f"Report on {names}"


def _loss_notes(stages: Sequence[Stage]) -> list[str]:
    """Say what of the logged losses is not drawn."""
    logged = sum(stage.losses.num_logged for stage in stages)
    drawn = sum(len(stage.losses.points) for stage in stages)
    broken = sum(stage.losses.num_not_finite for stage in stages)
    notes = []
    if drawn < logged:
        text = f"{drawn:,} of {logged:,} logged losses are drawn, with the extremes of all."
        notes.append(text)
    if broken:
        notes.append(f"{broken:,} logged losses were not finite, and are not drawn.")
    return notes


def _other_notes(report: Report) -> list[str]:
    """Return the report's notes but for those on data, which have a section of their own."""
    data = {line for run in report.runs for line in left_out_notes(run)}
    return [note for note in report.notes if note not in data]


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _bokeh() -> str:
    """Return Bokeh's script."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def _as_script(content: Any) -> str:
    """Return JSON that stands in a script element and cannot end it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
