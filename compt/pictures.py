"""What a report looks like: tables for the terminal, pictures for a page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from compt.tables import UNITS, quantity

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from compt.report import Comparison, MemberComparison, MemberReport, Report, RunReport

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
"""Okabe and Ito's colours, told apart with every kind of colour vision; yellow is left out on white."""
STYLES = ("-", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "oD^v"
LOG_RANGE = 20.0
"""Compute that spans more than this factor is drawn on a logarithmic axis."""
SETTINGS: Any = {
    "svg.hashsalt": "compt", "font.family": "DejaVu Sans", "font.size": 10.5, "axes.titlesize": 13,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left", "axes.titlepad": 12,
    "axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True, "legend.frameon": False,
}

CHARGES = (
    "FLOP alone: the whole budget of the member trained alone. Equal after: the chain's own stage up to",
    "its first measurement at or beyond that member's final figure. Before it: all stages it builds on.",
    "Saved: how many times less the own stage took; in all: with the stages before it charged too.",
    "Each figure is of one run: no spread is known.",
)
"""How the table of a comparison counts."""


def is_share(metric: Mapping[str, Any]) -> bool:
    """Whether a figure reads best in per cent: between 0 and 1, with a chance level."""
    return metric["chance"] is not None and metric["value"] is not None and 0 <= metric["value"] <= 1


def figure_text(metric: Mapping[str, Any] | None) -> str:
    """A figure with what guessing would reach beside it: '31.2 % (chance 1.1)'."""
    if metric is None:
        return "-"
    value, chance = metric["value"], metric["chance"]
    if value is None:
        return "not finite"
    if is_share(metric):
        return f"{100 * value:.1f} % (chance {100 * chance:.2g})"
    return f"{value:.4g}" + ("" if chance is None else f" (chance {chance:.4g})")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class _Column:
    header: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        return max(map(len, (self.header, *self.cells))) + 2


def tables(report: Report, width: int = 100) -> list[Table]:
    """One row a member: costs with the figures that fit into ``width``, then tables of further figures."""
    rows: list[tuple[RunReport, MemberReport | str]] = []
    for run in report.runs:
        rows += [(run, member) for member in run.members]
        rows += [(run, name) for name in run.unfinished]
    finished = [member for _, member in rows if not isinstance(member, str)]
    key = [_Column("member", tuple(m if isinstance(m, str) else m.name for _, m in rows))]
    if len(report.runs) > 1:
        key.insert(0, _Column("run", tuple(run.label for run, _ in rows)))
    facts = [_cost_cells(run, member) for run, member in rows]
    current = key + [_Column(header, tuple(row[header] for row in facts)) for header in facts[0]]
    packed = [current]
    mains = dict.fromkeys(m.main_metric for m in finished if m.main_metric)
    for name in mains | dict.fromkeys(name for m in finished for name in m.metrics):
        cells = tuple("" if isinstance(m, str) else figure_text(m.metrics.get(name)) for _, m in rows)
        column = _Column(name, cells)
        if len(packed[-1]) > len(key) and sum(c.width for c in (*packed[-1], column)) > width:
            packed.append(list(key))
        packed[-1].append(column)
    ends = [i for i in range(1, len(rows)) if rows[i][0] is not rows[i - 1][0]]
    return [_table(columns, ends) for columns in packed]


def _cost_cells(run: RunReport, member: MemberReport | str) -> dict[str, str]:
    """What a stage is and costs, by column; an unfinished one says so in the place of its time."""
    if isinstance(member, str):
        state = run.unfinished[member]
        return {"params": "", "samples": "", "compute": "", "share": "", "time": state, "grower (exact)": ""}
    return {
        "params": quantity(member.params),
        "samples": quantity(member.samples),
        "compute": quantity(member.flops, "FLOP"),
        "share": f"{100 * member.flops / (run.flops or 1):.0f} %",
        "time": duration(member.seconds),
        "grower (exact)": f"{member.grower} ({'yes' if member.exact else 'no'})" if member.grower else "-",
    }


def comparison_table(comparison: Comparison) -> Table:
    """One row a member: the chain's final figure against individual training, and the compute to equal it."""
    costs = ("FLOP alone", "equal after", "before it", "saved", "in all")
    headers = ("member", comparison.individual, comparison.chain, "verdict", *costs)
    rows: list[tuple[str, ...]] = []
    for m in comparison.members:
        if m.individual is None or m.chain is None or m.individual_flops is None:
            rows.append((m.name, "", "", "", "", m.status, "", "", ""))
            continue
        figures = (_short(value, m.chance) for value in (m.individual, m.chain))
        reached = m.status if m.reached_flops is None else quantity(m.reached_flops)
        spent = (quantity(m.individual_flops), reached, quantity(m.ancestor_flops or 0))
        saved = (times(m.acceleration), times(m.acceleration_with_ancestors))
        rows.append((m.name, *figures, m.verdict or "", *spent, *saved))
    return _table([_Column(h, tuple(row[i] for row in rows)) for i, h in enumerate(headers)], [])


def _short(value: float, chance: float | None) -> str:
    return figure_text({"value": value, "chance": chance}).partition(" (")[0]


def times(factor: float | None) -> str:
    """An acceleration, '-' where there is none."""
    return "-" if factor is None else f"{factor:.2f}x" if factor < 10 else f"{factor:.0f}x"


def _table(columns: Sequence[_Column], section_ends: Sequence[int]) -> Table:
    """A rich table whose first text columns stand left, numbers right; a rule after each run."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        left = column.header in ("run", "member", "grower (exact)", "verdict")
        table.add_column(column.header, justify="left" if left else "right", no_wrap=True)
    for index, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*row, end_section=index + 1 in section_ends)
    return table


def sentences(report: Report) -> Iterator[str]:
    """What the tables leave open: where the runs are, how compute is charged, what is not compared."""
    for run in report.runs:
        yield f"{run.label}: {run.path} ({quantity(run.flops, 'FLOP')}, {duration(run.seconds)} of training)"
    for c in report.comparisons:
        yield family_text(c)
        yield from (f"'{m.name}' is not compared: {m.reason}." for m in c.members if m.reason)
        early = {m.name: m for m in c.members if (m.individual_first_flops or 0) < (m.individual_flops or 0)}
        fair = [f"{n} {times(_charged_alike(m))}" for n, m in early.items() if m.individual_first_flops]
        if fair:
            yield f"Had their final figure alone before the end; saved up to there: {', '.join(fair)}."
    if report.comparisons:
        yield from CHARGES
    yield from report.notes


def _charged_alike(m: MemberComparison) -> float | None:
    """What the own stage saved with both sides charged to their first measurement of the figure."""
    first, reached = m.individual_first_flops, m.reached_flops
    return first / reached if first and reached else None


def family_text(c: Comparison) -> str:
    """The acceleration of the whole family in one sentence."""
    if c.acceleration is not None:
        full, first = times(c.acceleration_full), times(c.acceleration)
        what = f"the family took {full} less compute as it ran, {first} less with each stage only until then"
        return f"{c.chain}: every member reaches the one trained alone; {what}."
    unknown = tuple(m.name for m in c.members if m.status not in ("reached", "missed"))
    causes = {"missed": c.missed, "unknown": unknown}
    why = "; ".join(f"{cause}: {', '.join(names)}" for cause, names in causes.items() if names)
    return f"{c.chain}: no figure for the whole family ({why or 'no compute was needed'})."


def show(report: Report, paths: Sequence[Path], *, as_json: bool) -> None:
    """Print JSON to stdout, or tables, sentences and the paths of the files."""
    if as_json:
        print(json.dumps(report.to_dict(), indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    width = console.width if console.is_terminal else 100
    console.width = 1000  # a table is as wide as its columns; a narrower terminal wraps rather than cuts
    for table in (*tables(report, max(80, width)), *map(comparison_table, report.comparisons)):
        console.print(table)
        console.print()
    for line in (*sentences(report), *(f"wrote {path}" for path in paths)):
        console.print(line)


def pictures(report: Report) -> dict[str, bytes]:
    """Draw what can be drawn; file name -> content. The same report gives the same bytes."""
    import matplotlib

    drawn: dict[str, bytes] = {}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc does not change the pictures
        matplotlib.rcParams.update(SETTINGS)
        for name, figure in (("quality_vs_compute", quality(report)), ("acceleration", acceleration(report))):
            if figure is not None:
                for kind in ("png", "svg"):
                    buffer = BytesIO()
                    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
                    drawn[f"{name}.{kind}"] = buffer.getvalue()
    return drawn


def quality(report: Report) -> Figure | None:
    """Main figure against training FLOPs: colour by member, line style by run, chance as a dotted line."""
    from matplotlib.figure import Figure

    measured = [m for run in report.runs for m in run.members if m.main is not None and m.main_metric]
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
                axes.plot(x, y, lw=1.8, **line | {"marker": ".", "mfc": line["color"], "ms": 6, "mew": 0})
                axes.plot(x[-1:], y[-1:], **line)
    if metric["chance"] is not None:
        axes.axhline(scale * metric["chance"], color="#666666", ls=":", lw=1.5)
    _legend(figure, colours, styles, metric["chance"] is not None)
    return figure


def _line(member: MemberReport, metric: str) -> list[tuple[float, float]]:
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


def _legend(figure: Figure, colours: Mapping[str, Any], styles: Mapping[str, Any], chance: bool) -> None:
    """Members by colour, runs by line style, beside the axes."""
    from matplotlib.lines import Line2D

    lines: dict[str, Any] = {name: {"color": colour, "lw": 5} for name, colour in colours.items()}
    handles = [Line2D([], [], label=name, solid_capstyle="butt", **line) for name, line in lines.items()]
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
    axes.set_xticks(range(len(members)), names, rotation=20 if long else 0, ha="right" if long else "center")
    spare = max(0.1, (4 - len(members)) / 2)  # few bars stay slim
    axes.set_xlim(-0.5 - spare, len(members) - 0.5 + spare)
    axes.set_ylim(0, 1.12 * max(1.2, axes.get_ylim()[1]))
