"""What a report looks like: quality against compute, acceleration at equal quality."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from compt.report.format import UNITS, is_share, times
from compt.report.terminal import family_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compt.report.comparison import Comparison, Report
    from compt.report.results import MemberResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
"""Okabe and Ito's colours, told apart with every kind of colour vision; yellow is left out on
white.
"""

STYLES = ("-", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))

MARKERS = "oD^v"

LOG_RANGE = 20.0
"""Compute that spans more than this factor is drawn on a logarithmic axis."""

SETTINGS: Any = {
    "svg.hashsalt": "compt",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def pictures(report: Report) -> dict[str, bytes]:
    """Draw what can be drawn; file name -> content. The same report gives the same bytes."""
    import matplotlib

    drawn: dict[str, bytes] = {}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc does not change the pictures
        matplotlib.rcParams.update(SETTINGS)
        for name, figure in (
            ("quality_vs_compute", quality(report)),
            ("acceleration", acceleration(report)),
        ):
            if figure is not None:
                for kind in ("png", "svg"):
                    buffer = BytesIO()
                    figure.savefig(
                        buffer, format=kind, metadata={"Date": None} if kind == "svg" else None
                    )
                    drawn[f"{name}.{kind}"] = buffer.getvalue()
    return drawn


def quality(report: Report) -> Figure | None:
    """Main figure against training FLOPs: colour by member, line style by run, chance as a dotted
    line.
    """
    from matplotlib.figure import Figure

    measured = [
        m for run in report.runs for m in run.members if m.main is not None and m.main_metric
    ]
    if not measured:
        return None
    name, metric = str(measured[0].main_metric), measured[0].main or {}
    scale = 100 if is_share(metric) else 1
    figure = Figure(figsize=(9, 5.2), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Quality against training compute")
    direction = "" if metric["higher_is_better"] else ", lower is better"
    axes.set_ylabel(f"{name}, held out{' (%)' if scale == 100 else ''}{direction}")
    factor = _compute_axis(axes, [x for m in measured for x, _ in _line(m, name)])
    colours, styles = _colours(report), _styles(report)
    for run in report.runs:
        for member in run.members:
            if points := _line(member, name):
                x, y = [p[0] / factor for p in points], [p[1] * scale for p in points]
                line = {"color": colours[member.name], **styles[run.label]}
                axes.plot(
                    x, y, lw=1.8, **line | {"marker": ".", "mfc": line["color"], "ms": 6, "mew": 0}
                )
                axes.plot(x[-1:], y[-1:], **line)
    if metric["chance"] is not None:
        axes.axhline(scale * metric["chance"], color="#666666", ls=":", lw=1.5)
    _legend(figure, colours, styles, metric["chance"] is not None)
    return figure


def _line(member: MemberResult, metric: str) -> list[tuple[float, float]]:
    """The measured points of a member: FLOPs with its ancestors charged, figure."""
    points = ((member.ancestor_flops + p.flops, p.metrics.get(metric)) for p in member.curve)
    return [(flops, value) for flops, value in points if value is not None]


def _compute_axis(axes: Axes, flops: Sequence[float]) -> float:
    """Label and scale the x axis; return the FLOPs of one unit on it."""
    positive = [x for x in flops if x > 0]
    largest = max(positive, default=1.0)
    factor, prefix = next((unit for unit in UNITS if largest >= unit[0]), (1.0, ""))
    axes.set_xlabel(f"training compute ({prefix}FLOP), the members before it in its chain charged")
    if positive and largest / min(positive) > LOG_RANGE:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        decades = largest / min(positive) > 1e3
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.05 * largest / factor)
    return factor


def _colours(report: Report) -> dict[str, Any]:
    """A colour for every member's name, the same in all runs."""
    import matplotlib

    names = list(dict.fromkeys(m.name for run in report.runs for m in run.members))
    ramp = matplotlib.colormaps["viridis"]
    many = len(names) > len(COLOURS)
    return {n: ramp(0.95 * i / len(names)) if many else COLOURS[i] for i, n in enumerate(names)}


def _styles(report: Report) -> dict[str, dict[str, Any]]:
    """Line and marker of every run: chains filled, individual runs dashed with open markers."""
    styles: dict[str, dict[str, Any]] = {}
    chains = 0
    for run in report.runs:
        if run.mode == "individual":
            styles[run.label] = {"ls": "--", "marker": "s", "mfc": "none", "ms": 10, "mew": 1.7}
        else:
            shape, dashes = MARKERS[chains % len(MARKERS)], STYLES[chains % len(STYLES)]
            styles[run.label] = {"ls": dashes, "marker": shape, "ms": 8, "mew": 0}
            chains += 1
    return styles


def _legend(
    figure: Figure, colours: Mapping[str, Any], styles: Mapping[str, Any], chance: bool
) -> None:
    """Members by colour, runs by line style, beside the axes."""
    from matplotlib.lines import Line2D

    lines: dict[str, Any] = {name: {"color": colour, "lw": 5} for name, colour in colours.items()}
    handles = [
        Line2D([], [], label=name, solid_capstyle="butt", **line) for name, line in lines.items()
    ]
    handles.append(Line2D([], [], ls="none", label=" "))
    grey: dict[str, Any] = {"color": "#444444"}
    handles += [Line2D([], [], label=label, **grey | style) for label, style in styles.items()]
    if chance:
        handles.append(Line2D([], [], color="#666666", ls=":", lw=1.5, label="chance"))
    figure.legend(handles=handles, loc="outside right upper", handlelength=2.8)


def acceleration(report: Report) -> Figure | None:
    """Bars by member: how much cheaper the chain reached the individual member's final figure."""
    from matplotlib.figure import Figure

    if not report.comparisons:
        return None
    count = len(report.comparisons)
    figure = Figure(figsize=(9, 0.6 + 3.9 * count), dpi=200, layout="constrained")
    figure.suptitle("Acceleration at equal quality", x=0.01, ha="left", fontsize=13)
    for index, comparison in enumerate(report.comparisons):
        _bars(figure.add_subplot(count, 1, index + 1), comparison)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _bars(axes: Axes, comparison: Comparison) -> None:
    axes.set_title(textwrap.fill(family_text(comparison), 105), fontsize=10.5)
    axes.set_ylabel("FLOPs alone / FLOPs in the chain")
    axes.grid(axis="x", visible=False)
    members = comparison.members
    for shift, label, colour, field in (
        (-0.2, "its own stage only", COLOURS[0], "acceleration"),
        (0.2, "with all members before it", COLOURS[5], "acceleration_with_ancestors"),
    ):
        factors = [getattr(m, field) for m in members]
        x = [i + shift for i in range(len(members))]
        bars = axes.bar(x, [f or 0 for f in factors], 0.36, color=colour, label=label)
        axes.bar_label(bars, [times(f) if f else "" for f in factors], padding=2, fontsize=10)
    for i, member in enumerate(members):
        if member.status != "reached":
            place: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            axes.annotate(member.status, (i, 0), color="#777777", **place)
    axes.axhline(1, color="#666666", ls=":", lw=1.5, label="same compute")
    names = [m.name for m in members]
    long = sum(map(len, names)) > 70
    axes.set_xticks(
        range(len(members)), names, rotation=20 if long else 0, ha="right" if long else "center"
    )
    spare = max(0.1, (4 - len(members)) / 2)  # few bars stay slim
    axes.set_xlim(-0.5 - spare, len(members) - 0.5 + spare)
    axes.set_ylim(0, 1.12 * max(1.2, axes.get_ylim()[1]))
