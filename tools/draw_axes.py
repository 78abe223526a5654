"""Draw the pictures of docs/growth.md, ``python tools/draw_axes.py docs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COPIED, SPLIT, ZERO, FRESH, MEAN = "#0072B2", "#56B4E9", "#ffffff", "#E69F00", "#009E73"
MEANING = {
    COPIED: "the source's values\n(scaled where grown)",
    SPLIT: "the source's values,\nsplit over the copies",
    FRESH: "fresh values",
    MEAN: "mean of the source's rows\n(RMSNorm: zero)",
    ZERO: "zero at first",
}
INK = "#222222"


def matrix(
    axes: Any, rows: list[tuple[str, int]], columns: list[tuple[str, int]], fill: Any
) -> None:
    """Draw a matrix whose rows and columns are in named groups, coloured by ``fill(row, column)``.

    Args:
        rows: name and size of each group, from above.
        columns: the same, from the left.
        fill: gives the colour of the cells in two groups.
    """
    height, top = sum(size for _, size in rows), 0
    for row_name, row_size in rows:
        left = 0
        for column_name, column_size in columns:
            colour = fill(row_name, column_name)
            for i in range(row_size):
                for j in range(column_size):
                    cell = (left + j, height - top - i - 1)
                    axes.add_patch(Rectangle(cell, 1, 1, fc=colour, ec="#bbbbbb", lw=0.5))
            corner = (left, height - top - row_size)
            axes.add_patch(Rectangle(corner, column_size, row_size, fc="none", ec=INK, lw=1.2))
            left += column_size
        axes.text(-0.25, height - top - row_size / 2, row_name, ha="right", va="center")
        top += row_size
    left = 0
    for column_name, column_size in columns:
        axes.text(left + column_size / 2, height + 0.25, column_name, ha="center", va="bottom")
        left += column_size
    axes.set_xlim(-3.2, left + 0.4)
    axes.set_ylim(-0.4, height + 1.6)
    axes.set_aspect("equal")
    axes.axis("off")


def axes_picture() -> Figure:
    """Draw what becomes of a query and an output projection as heads and stream grow."""
    figure = Figure(figsize=(10.5, 7.2), layout="constrained", facecolor="#ffffff")
    grid = figure.subplots(2, 2, width_ratios=[4, 7])
    heads = [("head 1", 2), ("head 2", 2)]
    grown_heads = [*heads, ("head 3", 2)]
    stream = [("embed", 4)]
    grown_stream = [("copy 1", 4), ("copy 2", 4), ("pad", 1)]

    matrix(grid[0, 0], heads, stream, lambda *_: COPIED)
    grid[0, 0].set_title('query, "(heads head_dim) <- embed"', color=INK)

    def query(row: str, column: str) -> str:
        return FRESH if row == "head 3" or column == "pad" else SPLIT

    matrix(grid[0, 1], grown_heads, grown_stream, query)
    grid[0, 1].set_title("grown: the copies' parts add up to the source's column", color=INK)

    matrix(grid[1, 0], stream, heads, lambda *_: COPIED)
    grid[1, 0].set_title('output, "embed <- (heads head_dim)"', color=INK)

    def output(row: str, column: str) -> str:
        if column == "head 3":
            return ZERO
        return MEAN if row == "pad" else COPIED

    matrix(grid[1, 1], grown_stream, grown_heads, output)
    grid[1, 1].set_title(
        "grown: each copy is written alike, the new head writes nothing yet", color=INK
    )
    handles = [Rectangle((0, 0), 1, 1, fc=c, ec=INK, label=text) for c, text in MEANING.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def write(figure: Figure, path: Path) -> None:
    """Write an SVG that is the same each time."""
    with matplotlib.rc_context({"svg.hashsalt": "compt", "svg.fonttype": "path"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    write(axes_picture(), Path(sys.argv[1]) / "axes.svg")
