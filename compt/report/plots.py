"""Draw a report as plots of quality against compute, and acceleration at equal quality."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from compt.report.format import is_share, metric_label, times, unit_of
from compt.report.metrics import MetricValue
from compt.report.terminal import family_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compt.report.comparison import Comparison, Report

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
"""Okabe and Ito's, told apart with every kind of colour vision; their yellow is lost on white."""

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


def draw_plots(report: Report) -> dict[str, bytes]:
    """Draw what can be drawn, and return the content of each file by its name.

    The same report gives the same bytes.
    """
    import matplotlib

    files: dict[str, bytes] = {}
    with matplotlib.rc_context():
        # A user's matplotlibrc would change the plots: what was read of it when matplotlib
        # was imported has to go first.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        for name, figure in (
            ("quality_vs_compute", quality(report)),
            ("acceleration", acceleration(report)),
        ):
            if figure is not None:
                files |= {f"{name}.{kind}": _content(figure, kind) for kind in ("png", "svg")}
    return files


def _content(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    # matplotlib writes the time into an SVG, and no two reports would be the same.
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def quality(report: Report) -> Figure | None:
    """Draw the main metric against training FLOPs, None where nothing was measured.

    Colour tells the member, line style the run; chance is a dotted line.
    """
    from matplotlib.figure import Figure

    measured = _first_measured(report)
    if measured is None:
        return None
    name, metric = measured
    scale = 100 if is_share(metric) else 1
    figure = Figure(figsize=(9, 5.2), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Quality against training compute")
    axes.set_ylabel(metric_label(name, metric))
    lines = [
        (run.label, member.name, member.curve(name))
        for run in report.runs
        for member in run.members
    ]
    factor = _compute_axis(axes, [flops for _, _, points in lines for flops, _ in points])
    colours, styles = _colours(report), _styles(report)
    for label, member_name, points in lines:
        scaled = [(flops / factor, value * scale) for flops, value in points]
        _draw_line(axes, scaled, colours[member_name], styles[label])
    if metric.chance is not None:
        axes.axhline(scale * metric.chance, color="#666666", ls=":", lw=1.5)
    _legend(figure, colours, styles, metric.chance is not None)
    return figure


def _first_measured(report: Report) -> tuple[str, MetricValue] | None:
    """Return the name and the value of the first member's main metric that is finite."""
    for run in report.runs:
        for member in run.members:
            if member.record.main is not None:
                return str(member.record.main_metric), member.record.main
    return None


def _draw_line(
    axes: Axes, points: Sequence[tuple[float, float]], colour: Any, style: Mapping[str, Any]
) -> None:
    """Draw a curve with small dots, and the mark of its run on the last one."""
    if not points:
        return
    x, y = [point[0] for point in points], [point[1] for point in points]
    line = {"color": colour, **style}
    axes.plot(x, y, lw=1.8, **line | {"marker": ".", "mfc": colour, "ms": 6, "mew": 0})
    axes.plot(x[-1:], y[-1:], **line)


def _compute_axis(axes: Axes, flops: Sequence[float]) -> float:
    """Label and scale the x axis, and return the FLOPs of one unit on it."""
    positive = [x for x in flops if x > 0]
    largest = max(positive, default=1.0)
    factor, prefix = unit_of(positive)
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
    """Return a colour for every member's name, the same in all runs."""
    import matplotlib

    names = list(dict.fromkeys(m.name for run in report.runs for m in run.members))
    ramp = matplotlib.colormaps["viridis"]
    many = len(names) > len(COLOURS)
    return {n: ramp(0.95 * i / len(names)) if many else COLOURS[i] for i, n in enumerate(names)}


def _styles(report: Report) -> dict[str, dict[str, Any]]:
    """Return line and marker of every run.

    Chains are filled, individual runs dashed with open markers.
    """
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
    """Name members by colour and runs by line style, beside the axes."""
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
    """Draw by how much each member of a chain was cheaper, None without a comparison.

    Counted until it reached the individual member's final metric.
    """
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
    own = [member.acceleration for member in members]
    whole = [member.acceleration_with_ancestors for member in members]
    _bar_row(axes, -0.2, own, label="its own stage only", color=COLOURS[0])
    _bar_row(axes, 0.2, whole, label="with all members before it", color=COLOURS[5])
    for i, member in enumerate(members):
        if member.status != "reached":
            place: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            axes.annotate(member.status, (i, 0), color="#777777", **place)
    axes.axhline(1, color="#666666", ls=":", lw=1.5, label="same compute")
    _name_bars(axes, [member.name for member in members])
    axes.set_ylim(0, 1.12 * max(1.2, axes.get_ylim()[1]))


def _bar_row(axes: Axes, shift: float, factors: Sequence[float | None], **options: Any) -> None:
    """Draw one bar a member beside its tick, with its factor above."""
    x = [i + shift for i in range(len(factors))]
    bars = axes.bar(x, [factor or 0 for factor in factors], 0.36, **options)
    labels = [times(factor) if factor else "" for factor in factors]
    axes.bar_label(bars, labels, padding=2, fontsize=10)


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    """Name the members below their bars, aslant where the names are too long to stand."""
    aslant: Any = {"rotation": 20, "ha": "right"} if sum(map(len, names)) > 70 else {}
    axes.set_xticks(range(len(names)), names, **aslant)
    spare = max(0.1, (4 - len(names)) / 2)  # few bars stay slim
    axes.set_xlim(-0.5 - spare, len(names) - 0.5 + spare)
