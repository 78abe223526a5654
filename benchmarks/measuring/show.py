"""Results as JSON, tables and pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from compt.errors import ConfigError
from compt.files import atomic
from compt.report.format import plain_console, quantity

PAPER = {3: 4.13, 4: 5.68, 7: 7.09}
"""Ratios of arXiv 2604.12391 by the number of members, for CLIP on CC3M."""


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write a result; what is not a number, as the deviation of one seed, is null."""
    with atomic(path) as file:
        file.write_text(json.dumps(_finite(found), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spread(middle: float, deviation: float | None, form: str = ".4f", unit: str = "") -> str:
    """A figure with its deviation, if that is known."""
    known = deviation is not None and math.isfinite(deviation)
    return f"{middle:{form}}{unit}" + (f" ± {deviation:{form.lstrip('+')}}" if known else "")


def table(found: Mapping[str, Any]) -> None:
    """Print a family's result, the ratios last."""
    console = plain_console()
    grid = Table(
        title=f"{found['name']}: {found['metric']}, seeds {found['seeds']}", box=box.SIMPLE_HEAD
    )
    for column in (
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
    ):
        grid.add_column(column, justify="left" if column == "member" else "right", no_wrap=True)
    for row in found["members"]:
        grid.add_row(
            row["name"],
            quantity(row["params"]),
            f"{row['lr']:g}",
            f"{row['alone']:.4f}",
            f"{row['chain']:.4f}",
            spread(row["gain"], row["standard_error"], "+.4f")
            + ("" if row["as_good"] else "  missed"),
            f"{row['fraction']:g}",
            spread(row["predicted_fraction"], row["predicted_deviation"], ".2f"),
            f"{row['chain_flops'] / row['alone_flops']:.2f}",
            f"{row['reached_flops'] / row['alone_flops']:.2f}" if row["reached_flops"] else "-",
        )
    console.print(grid)
    console.print(
        "FLOPs: of this stage, by those of the member alone; reached: with all before it, until it is as good as alone"
    )
    console.print(f"whole family, every member as good as alone: {ratio_text(found)}")
    console.print(f"predicted from the members alone: {predicted_text(found)}")
    tried = [
        " - ".join(f"{f:g}" for f in one["fractions"]) + ": " + tried_text(one)
        for one in found["searches"]
    ]
    console.print(
        f"tried on the choosing seeds: {'; '.join(tried) or 'nothing, the preset has the chain'}"
    )
    if (largest := found["acceleration_of_the_largest"]) is not None:
        console.print(f"if only the largest is wanted: {largest:.2f}x")
    if found["floor"]:
        console.print(f"to compare with: {found['floor']}")


def ratio_text(found: Mapping[str, Any]) -> str:
    """The family's ratio in FLOPs and seconds, or who missed it."""
    if found["acceleration"] is not None:
        return f"{found['acceleration']:.2f}x in FLOPs, {found['acceleration_seconds']:.2f}x in seconds"
    ratio = found["acceleration_if_none_were_missed"]
    return f"missed by {', '.join(found['missed'])} (at these budgets {ratio:.2f}x)"


def predicted_text(found: Mapping[str, Any]) -> str:
    """The ratio predicted for members that train no longer than they need."""
    return spread(found["predicted_acceleration"], found["predicted_deviation"], ".2f", "x")


def tried_text(search: Mapping[str, Any]) -> str:
    """What a chain that was tried came to."""
    if search["acceleration"] is None:
        return "given up, more of the next would make it no cheaper"
    return f"{search['acceleration']:.2f}x" + (" (missed)" if search["missed"] else "")


def family_table(found: Sequence[Mapping[str, Any]]) -> str:
    """One row a family; a missed member is named, and the family then has no ratio."""
    lines = [
        "| family | members | acceleration in FLOPs | in seconds | only the largest | no member longer than it needs: "
        "predicted, measured | paper, CLIP |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        count = len(one["members"])
        ends = one["members"][0]["params"], one["members"][-1]["params"]
        sizes = " - ".join(f"{size / 1e6:.2g}" for size in ends)
        if one["missed"]:
            ratio = f"missed by {', '.join(one['missed'])} ({one['acceleration_if_none_were_missed']:.2f}x without)"
            seconds = ""
        else:
            ratio, seconds = (
                f"**{one['acceleration']:.2f}x**",
                f"{one['acceleration_seconds']:.2f}x",
            )
        largest = one["acceleration_of_the_largest"]
        unstretched = ", ".join([predicted_text(one), *map(tried_text, one["searches"][:1])])
        lines.append(
            f"| {one['name'].partition('-')[0]}, {sizes} M parameters | {count} | {ratio} | {seconds} | "
            f"{f'{largest:.2f}x' if largest else ''} | {unstretched} | "
            f"{f'{PAPER[count]}x' if count in PAPER else ''} |"
        )
    return "\n".join(lines)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Quality against compute: every member alone in grey, in the chain in colour, one line a
    seed.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    quality_lines(axes, found)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def quality_lines(axes: Any, found: Mapping[str, Any]) -> None:
    """Draw one family's curves into axes."""
    plt = _pyplot()
    colours, count = plt.get_cmap("viridis"), len(found["members"])
    for way in ("alone", "chain"):
        for seed, run in enumerate(found["curves"][way]):
            for i, curve in enumerate(run):
                colour = "0.72" if way == "alone" else colours(0.05 + 0.8 * i / max(1, count - 1))
                label = (
                    f"{found['members'][i]['name']}, in the chain"
                    if way == "chain" and not seed
                    else None
                )
                label = "alone" if way == "alone" and not seed and not i else label
                points = [(x, y) for x, y in curve if y is not None]
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.1, alpha=0.85, label=label)
                axes.plot(*points[-1], marker="o", ms=4, color=colour)
    axes.set_xscale("log")
    ends = sorted(
        y
        for runs in found["curves"].values()
        for run in runs
        for curve in run
        for _, y in curve[-2:]
    )
    starts = [curve[0][1] for run in found["curves"]["alone"] for curve in run]
    worst = (max if ends[0] < starts[0] else min)(ends) if starts else ends[0]
    margin = 1.5 * abs(ends[-1] - ends[0])
    if found["higher_is_better"]:
        axes.set_ylim(bottom=max(0.0, worst - margin))
    else:
        axes.set_ylim(top=worst + margin)
    axes.set_xlabel("training FLOPs, those of all members before it included")
    axes.set_ylabel(found["metric"])
    axes.spines[["top", "right"]].set_visible(False)


def draw_together(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The first family's quality against compute, and every family's acceleration by its number of
    members.
    """
    plt = _pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1.25, 1)
    )
    quality_lines(left, found[0])
    left.set_title(found[0]["name"], fontsize=10)
    size_lines(right, found)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def size_lines(axes: Any, found: Sequence[Mapping[str, Any]]) -> None:
    """Draw the ratios of several results into axes; a family with a missed member is a hollow
    mark.
    """
    axes.plot(
        list(PAPER),
        list(PAPER.values()),
        "--",
        marker="s",
        ms=4,
        color="0.6",
        label="CLIP on CC3M, the paper's",
    )
    for i, name in enumerate(dict.fromkeys(one["name"] for one in found)):
        points = sorted((len(one["members"]), one) for one in found if one["name"] == name)
        colour = f"C{i}"
        xs, ys = (
            [n for n, _ in points],
            [one["acceleration_if_none_were_missed"] for _, one in points],
        )
        axes.plot(xs, ys, color=colour, lw=1.5, label=name)
        for x, y, (_, one) in zip(xs, ys, points, strict=True):
            face = "none" if one["missed"] else colour
            axes.plot(x, y, marker="o", ms=6, color=colour, markerfacecolor=face)
    axes.set_xticks(list(PAPER))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("members in the family")
    axes.set_ylabel("acceleration of the whole family, FLOPs")
    axes.spines[["top", "right"]].set_visible(False)


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
    matplotlib.rcParams["svg.hashsalt"] = "compt"
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    with atomic(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
