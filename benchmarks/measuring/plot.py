"""Draw rows of several families as one plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.rule import SEEDS
from measuring.show import Row
from measuring.tables import panel_name

KEPT, EQUAL, MISSED, QUIET = "C0", "C2", "C3", "gray"
OTHERS = ("C1", "C4", "C5", "C6", "C8", "C9")
"""Colours of further families of the same members."""
BESIDE = 1.06
"""Factor by which each of those is moved to the right, so that points do not hide each other."""


def draw_map(rows: Sequence[Row], path: Path) -> None:
    """Draw acceleration against length of training, one panel for all families of some members.

    Only the first of them has its controls drawn; the others differ in how members are grown.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    families: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in rows:
        members = tuple(member["name"] for member in row["members"])
        families.setdefault(members, {}).setdefault(panel_name(row), []).append(row)
    widths = [_width(next(iter(of_members.values()))) for of_members in families.values()]
    legend_columns = max(2, int(sum(widths) / 2.2))
    figure, panels = plt.subplots(
        1,
        len(families),
        figsize=(sum(widths), 4.2),
        width_ratios=widths,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, of_members in zip(panels[0], families.values(), strict=True):
        (name, its_rows), *others = of_members.items()
        _draw_family(panel, sorted(its_rows, key=lambda row: row["length"]))
        for place, (other, other_rows) in enumerate(others):
            _draw_other(panel, place, other.partition(",")[0], other_rows)
        panel.set_title(name, fontsize=10)
    # What chains reach lies below 2, what the controls say goes far beyond.
    panels[0][0].set_yscale("log", base=2)
    panels[0][0].yaxis.set_major_formatter("{x:g}")
    panels[0][0].set_ylabel("compute alone / compute of the chain")
    by_label = {
        label: handle
        for panel in panels[0]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        by_label.values(), by_label, fontsize=8, loc="outside lower center", ncols=legend_columns
    )
    with matplotlib.rc_context({"svg.hashsalt": "compt"}):  # the same rows give the same bytes
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _width(rows: Sequence[Row]) -> float:
    """Return the inches of a panel; a single length has no line, so it needs few."""
    return 4.4 if len(rows) > 1 else 2.4


def _draw_family(panel: Any, rows: Sequence[Row]) -> None:
    is_open = [row for row in rows if row["gate"]["open"]]
    decided = [row for row in is_open if row["seeds"] >= SEEDS]
    in_order = [row for row in decided if row["in_order"]]
    missed = [row for row in decided if not row["in_order"]]
    _plot(panel, in_order, "ratio", "as good, order kept", marker="o", color=KEPT)
    _plot(panel, missed, "ratio", "missed", marker="x", color=MISSED, linestyle="")
    _plot(panel, is_open, "equal_quality", "at equal quality", color=EQUAL, marker="v")
    _plot(panel, is_open, "skip_bound", "skip bound", color=KEPT, linestyle="--", marker="_")
    padded = [{"length": row["length"], **row["pad_null"]} for row in rows]
    _plot(panel, padded, "ratio", "stop and pad", color=QUIET, linestyle=":", marker=".")
    for row in rows:
        if not row["gate"]["open"]:
            panel.axvline(row["length"], color=MISSED, alpha=0.3, label="no family")
    panel.axhline(1, color="black", linewidth=0.5)
    panel.set_xscale("log", base=2)
    lengths = [row["length"] for row in rows]
    panel.set_xticks(lengths, [f"{length:.3g}" for length in lengths])
    panel.minorticks_off()
    panel.set_xlabel(rows[0]["unit"], fontsize=8)


def _draw_other(panel: Any, place: int, name: str, rows: Sequence[Row]) -> None:
    """Draw what chains of the same members reach that are grown otherwise."""
    moved = [{**row, "length": row["length"] * BESIDE ** (place + 1)} for row in rows]
    decided = [row for row in moved if row["gate"]["open"] and row["seeds"] >= SEEDS]
    style: dict[str, Any] = {"color": OTHERS[place % len(OTHERS)], "linestyle": ""}
    for is_kept, marker, verdict in ((True, "o", "order kept"), (False, "x", "missed")):
        of_verdict = [row for row in decided if row["in_order"] is is_kept]
        _plot(panel, of_verdict, "ratio", f"{name}, {verdict}", marker=marker, **style)
    _plot(panel, decided, "equal_quality", f"{name}, at equal quality", marker="v", **style)


def _plot(panel: Any, rows: Sequence[Row], key: str, label: str, **style: Any) -> None:
    """Plot one number of rows by their length, of those that have it; 0 and null are no numbers."""
    points = [(row["length"], row[key]) for row in rows if row.get(key)]
    if points:
        panel.plot(*zip(*points, strict=True), label=label, **style)
