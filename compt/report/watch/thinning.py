"""Keep a long history short."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from compt.report.watch.status import Points

MOST = 60
"""Points that are kept at least, once there are as many; at most twice as many."""


class Thinned:
    """A history of numbers, each point of which is a mean over equally many neighbours."""

    def __init__(self, points: Points = ()) -> None:
        self._points = points
        self._group: list[tuple[float, float]] = []
        self._group_size = 1

    @property
    def points(self) -> Points:
        """The history so far, what is not yet a whole group as a mean of its own."""
        return (*self._points, *([_mean(self._group)] if self._group else []))

    def add(self, x: float, y: float) -> None:
        """Take one more number."""
        self._group.append((x, y))
        if len(self._group) < self._group_size:
            return
        points = (*self._points, _mean(self._group))
        self._group = []
        if len(points) >= 2 * MOST:
            points = tuple(_mean(points[i : i + 2]) for i in range(0, len(points), 2))
            self._group_size *= 2
        self._points = points

    def cut(self, x: float) -> None:
        """Forget what is beyond ``x``, as a stage that goes back to a checkpoint does."""
        self._points = tuple(point for point in self.points if point[0] <= x)
        self._group = []


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(x for x, _ in points), fmean(y for _, y in points)
