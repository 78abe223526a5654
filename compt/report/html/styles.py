"""Give every member a colour, and every run a line style and a marker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.report.plots import COLOURS

if TYPE_CHECKING:
    from compt.report.html.stages import Stage
    from compt.report.results import RunResult

FEW = (*COLOURS[:6], "#8A8A8A")
"""Those of the plots, but for the last, which is lost on black."""
DASHES = ("solid", "dotdash", "dotted", "6 2 2 2 2 2")
MARKERS = ("circle", "diamond", "triangle", "inverted_triangle")
ALONE = ("dashed", "square")


@dataclass(frozen=True)
class RunStyle:
    """How the lines of a run are drawn."""

    dash: str
    marker: str
    is_filled: bool


def member_colours(stages: Sequence[Stage]) -> dict[str, str]:
    """Return a colour for every member's name, the same in all runs."""
    names = list(dict.fromkeys(stage.name for stage in stages))
    if len(names) <= len(FEW):
        return dict(zip(names, FEW, strict=False))
    from bokeh.palettes import Viridis256

    # Its ends are lost on black and on white.
    steps = [50 + 170 * index // (len(names) - 1) for index in range(len(names))]
    return {name: Viridis256[step] for name, step in zip(names, steps, strict=True)}


def run_styles(runs: Sequence[RunResult]) -> dict[str, RunStyle]:
    """Return how each run is drawn, by label: chains filled, individual runs dashed and open."""
    styles: dict[str, RunStyle] = {}
    num_chains = 0
    for run in runs:
        if run.mode == "individual":
            styles[run.label] = RunStyle(*ALONE, is_filled=False)
            continue
        dash = DASHES[num_chains % len(DASHES)]
        marker = MARKERS[num_chains % len(MARKERS)]
        styles[run.label] = RunStyle(dash, marker, is_filled=True)
        num_chains += 1
    return styles
