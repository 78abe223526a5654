"""Draw a report, as far as that works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compt.report.comparison import Report

PAGE = "report.html"
PLOTS = {
    f"{stem}.{kind}" for stem in ("quality_vs_compute", "acceleration") for kind in ("png", "svg")
}
DRAWN = frozenset({PAGE, *PLOTS})
"""The files that a report may be drawn as."""
MISSING = "report.html is not written: it needs Bokeh. Install it: pip install 'compt[report]'"


@dataclass(frozen=True)
class Drawings:
    """What a report was drawn as."""

    files: Mapping[str, bytes]
    """Contents by name."""
    problems: tuple[str, ...]
    """Why others are missing, one sentence each."""


def draw(report: Report) -> Drawings:
    """Draw a report as plots and as a page.

    What cannot be drawn is left out and said, as a run that has taken days must not fail for it.
    """
    files: dict[str, bytes] = {}
    problems = []
    steps: tuple[tuple[str, Callable[[Report], Mapping[str, bytes]]], ...] = (
        ("The plots", _plots),
        (PAGE, _page),
    )
    for name, step in steps:
        try:
            files |= step(report)
        except ImportError as error:
            missing = (error.name or "").partition(".")[0] == "bokeh"
            problems.append(MISSING if missing else _problem(name, error))
        except Exception as error:
            problems.append(_problem(name, error))
    return Drawings(files, tuple(problems))


def _problem(name: str, error: Exception) -> str:
    return f"{name} could not be drawn: {type(error).__name__}: {error}"


def _plots(report: Report) -> Mapping[str, bytes]:
    from compt.report.plots import draw_plots

    return draw_plots(report)


def _page(report: Report) -> Mapping[str, bytes]:
    from compt.report.html.page import html_page

    return {PAGE: html_page(report).encode()}
