"""Draw numbers in one row of characters."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from compt.report.watch.status import Points

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*%#"
"""For terminals that know no others; each is higher, or darker, than the one before."""


def limits(curves: Iterable[Points]) -> tuple[float, float]:
    """Return the least and the largest value of several curves, to draw them alike."""
    values = [value for points in curves for _, value in points]
    return min(values, default=0.0), max(values, default=0.0)


def sparkline(
    points: Points, end: float, width: int, limits: tuple[float, float], levels: str = BLOCKS
) -> str:
    """Draw a curve from 0 to ``end`` in ``width`` characters, as far as it goes.

    A character stands for the mean of its points; where it has none, the value before it still
    holds. Nothing is drawn before the first point.

    Args:
        points: in order.
        end: x at the end of the row.
        width: characters.
        limits: values of the lowest and the highest level.
        levels: characters, the lowest first.
    """
    cells: dict[int, list[float]] = {}
    for x, value in points:
        cell = min(width - 1, int(x / end * width)) if end > 0 else width - 1
        cells.setdefault(cell, []).append(value)
    row, held = "", " "
    for cell in range(max(cells, default=-1) + 1):
        if cell in cells:
            held = _level(fmean(cells[cell]), limits, levels)
        row += held
    return row


def _level(value: float, limits: tuple[float, float], levels: str) -> str:
    low, high = limits
    share = (value - low) / (high - low) if high > low else 0.5
    return levels[min(len(levels) - 1, int(share * len(levels)))]
