"""Show results as JSON, tables and plots."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from compt.errors import ConfigError
from compt.files import atomic
from compt.report.format import plain_console, quantity

PAPER = {3: 4.13, 4: 5.68, 7: 7.09}
"""Ratios of arXiv 2604.12391 by the number of members, for CLIP on CC3M."""


Result = Mapping[str, Any]
"""Of one family, as :func:`measuring.outcome.outcome` gives it."""

COLUMNS = (
    "member",
    "params",
    "lr",
    "alone",
    "chain",
    "better by",
    "fraction",
    "predicted",
    "FLOPs",
    "reached",
)


def write(result: Result, path: Path) -> None:
    """Write a result, with null for what is not a number, as the deviation of one seed is."""
    with atomic(path) as file:
        file.write_text(json.dumps(_finite(result), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spread(middle: float, deviation: float | None, form: str = ".4f", unit: str = "") -> str:
    """Write a value with its deviation, if that is known."""
    text = f"{middle:{form}}{unit}"
    if deviation is None or not math.isfinite(deviation):
        return text
    return f"{text} ± {deviation:{form.lstrip('+')}}"


def table(result: Result) -> None:
    """Print a family's result, the ratios last."""
    console = plain_console()
    title = f"{result['name']}: {result['metric']}, seeds {result['seeds']}"
    grid = Table(title=title, box=box.SIMPLE_HEAD)
    for column in COLUMNS:
        grid.add_column(column, justify="left" if column == "member" else "right", no_wrap=True)
    for row in result["members"]:
        grid.add_row(*_cells(row))
    console.print(grid)
    for line in _sentences(result):
        console.print(line)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    missed = "" if row["as_good"] else "  missed"
    reached = f"{row['reached_flops'] / row['alone_flops']:.2f}" if row["reached_flops"] else "-"
    return (
        row["name"],
        quantity(row["params"]),
        f"{row['lr']:g}",
        f"{row['alone']:.4f}",
        f"{row['chain']:.4f}",
        spread(row["gain"], row["standard_error"], "+.4f") + missed,
        f"{row['fraction']:g}",
        spread(row["predicted_fraction"], row["predicted_deviation"], ".2f"),
        f"{row['chain_flops'] / row['alone_flops']:.2f}",
        reached,
    )


def _sentences(result: Result) -> Iterator[str]:
    yield (
        "FLOPs: of this stage, by those of the member alone; reached: with all before it, "
        "until it is as good as alone"
    )
    yield f"whole family, every member as good as alone: {ratio_text(result)}"
    yield f"predicted from the members alone: {predicted_text(result)}"
    tried = "; ".join(
        f"{' - '.join(f'{fraction:g}' for fraction in search['fractions'])}: {tried_text(search)}"
        for search in result["searches"]
    )
    yield f"tried on the choosing seeds: {tried or 'nothing, the preset has the chain'}"
    if (largest := result["acceleration_of_the_largest"]) is not None:
        yield f"if only the largest is wanted: {largest:.2f}x"
    if result["floor"]:
        yield f"to compare with: {result['floor']}"


def ratio_text(result: Result) -> str:
    """Return the family's ratio in FLOPs and seconds, or who missed it."""
    if result["acceleration"] is not None:
        flops, seconds = result["acceleration"], result["acceleration_seconds"]
        return f"{flops:.2f}x in FLOPs, {seconds:.2f}x in seconds"
    ratio = result["acceleration_if_none_were_missed"]
    return f"missed by {', '.join(result['missed'])} (at these budgets {ratio:.2f}x)"


def predicted_text(result: Result) -> str:
    """Return the ratio predicted for members that train no longer than they need."""
    return spread(result["predicted_acceleration"], result["predicted_deviation"], ".2f", "x")


def tried_text(search: Mapping[str, Any]) -> str:
    """Return what a chain that was tried came to."""
    if search["acceleration"] is None:
        return "given up, more of the next would make it no cheaper"
    return f"{search['acceleration']:.2f}x" + (" (missed)" if search["missed"] else "")


def family_table(results: Sequence[Result]) -> str:
    """Return one row a family.

    A missed member is named, and the family then has no ratio.
    """
    header = (
        "| family | members | acceleration in FLOPs | in seconds | only the largest | "
        "no member longer than it needs: predicted, measured | paper, CLIP |"
    )
    return "\n".join([header, "|---|---|---|---|---|---|---|", *map(_family_row, results)])


def _family_row(result: Result) -> str:
    members = result["members"]
    sizes = " - ".join(f"{row['params'] / 1e6:.2g}" for row in (members[0], members[-1]))
    ratio, seconds = _family_ratios(result)
    largest = result["acceleration_of_the_largest"]
    unstretched = [predicted_text(result), *map(tried_text, result["searches"][:1])]
    cells = (
        f"{result['name'].partition('-')[0]}, {sizes} M parameters",
        str(len(members)),
        ratio,
        seconds,
        f"{largest:.2f}x" if largest else "",
        ", ".join(unstretched),
        f"{PAPER[len(members)]}x" if len(members) in PAPER else "",
    )
    return f"| {' | '.join(cells)} |"


def _family_ratios(result: Result) -> tuple[str, str]:
    if result["missed"]:
        ratio = result["acceleration_if_none_were_missed"]
        return f"missed by {', '.join(result['missed'])} ({ratio:.2f}x without)", ""
    return f"**{result['acceleration']:.2f}x**", f"{result['acceleration_seconds']:.2f}x"


def draw(result: Result, path: Path) -> None:
    """Draw quality against compute, one line a seed.

    Every member alone is grey, in the chain in colour.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    quality_lines(axes, result)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def quality_lines(axes: Any, result: Result) -> None:
    """Draw one family's curves into axes."""
    members = [row["name"] for row in result["members"]]
    colours = _pyplot().get_cmap("viridis")
    for seed, run in enumerate(result["curves"]["alone"]):
        for i, curve in enumerate(run):
            _draw_curve(axes, curve, "0.72", None if seed or i else "alone")
    for seed, run in enumerate(result["curves"]["chain"]):
        for i, curve in enumerate(run):
            colour = colours(0.05 + 0.8 * i / max(1, len(members) - 1))
            _draw_curve(axes, curve, colour, None if seed else f"{members[i]}, in the chain")
    axes.set_xscale("log")
    _limit_quality(axes, result)
    axes.set_xlabel("training FLOPs, those of all members before it included")
    axes.set_ylabel(result["metric"])
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(
    axes: Any, curve: Sequence[tuple[float, float | None]], colour: Any, label: str | None
) -> None:
    points = [(flops, value) for flops, value in curve if value is not None]
    axes.plot(*zip(*points, strict=True), color=colour, lw=1.1, alpha=0.85, label=label)
    axes.plot(*points[-1], marker="o", ms=4, color=colour)


def _limit_quality(axes: Any, result: Result) -> None:
    """Leave out how bad members are when they begin, next to which their ends look alike."""
    curves = [curve for runs in result["curves"].values() for run in runs for curve in run]
    ends = sorted(value for curve in curves for _, value in curve[-2:])
    starts = [curve[0][1] for run in result["curves"]["alone"] for curve in run]
    worst = (max if ends[0] < starts[0] else min)(ends) if starts else ends[0]
    margin = 1.5 * abs(ends[-1] - ends[0])
    if result["higher_is_better"]:
        axes.set_ylim(bottom=max(0.0, worst - margin))
    else:
        axes.set_ylim(top=worst + margin)


def draw_together(results: Sequence[Result], path: Path) -> None:
    """Draw the first family's quality, and every family's acceleration by its size."""
    plt = _pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1.25, 1)
    )
    quality_lines(left, results[0])
    left.set_title(results[0]["name"], fontsize=10)
    size_lines(right, results)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def size_lines(axes: Any, results: Sequence[Result]) -> None:
    """Draw the ratios of several results into axes, hollow where a member was missed."""
    paper = {"color": "0.6", "marker": "s", "ms": 4, "label": "CLIP on CC3M, the paper's"}
    axes.plot(list(PAPER), list(PAPER.values()), "--", **paper)
    for i, name in enumerate(dict.fromkeys(result["name"] for result in results)):
        family = [result for result in results if result["name"] == name]
        _draw_family(axes, sorted(family, key=lambda r: len(r["members"])), f"C{i}", name)
    axes.set_xticks(list(PAPER))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("members in the family")
    axes.set_ylabel("acceleration of the whole family, FLOPs")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_family(axes: Any, results: Sequence[Result], colour: str, name: str) -> None:
    sizes = [len(result["members"]) for result in results]
    ratios = [result["acceleration_if_none_were_missed"] for result in results]
    axes.plot(sizes, ratios, color=colour, lw=1.5, label=name)
    for size, ratio, result in zip(sizes, ratios, results, strict=True):
        face = "none" if result["missed"] else colour
        axes.plot(size, ratio, marker="o", ms=6, color=colour, markerfacecolor=face)


def put_between(document: Path, name: str, content: str) -> None:
    """Put text between the markers ``<!-- NAME -->`` and ``<!-- end -->`` of a document.

    Raises:
        ConfigError: the document has no such markers.
    """
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
    text, count = re.subn(
        pattern,
        lambda match: f"{match[1]}\n{content}\n\n{match[2]}",
        document.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise ConfigError(
            f"'{document}' has no place for '{name}'.", do=f"Add <!-- {name} --> and <!-- end -->."
        )
    with atomic(document) as file:
        file.write_text(text)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "compt"  # or every file has other names inside
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    with atomic(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
