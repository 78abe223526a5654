"""Read how long a member alone takes to a quality, from runs of several lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise


def length_to(quality: float, curve: Mapping[int, float]) -> float:
    """Return the length at which a member alone reaches a quality.

    Every point of the curve is a run of its own, trained to its end with its schedule. Between two
    points quality is linear in the logarithm of the length, and so beyond the longest, which
    flatters it: curves bend. Below the shortest the answer is the shortest, an upper bound. Lengths
    at which runs diverged are left out.

    Args:
        quality: to reach, a number that is to rise.
        curve: quality by length in iterations.

    Returns:
        The length in iterations; inf where the end of the curve does not rise, or hardly does.
    """
    points = sorted((length, value) for length, value in curve.items() if math.isfinite(value))
    if not points:
        return math.inf
    if quality <= points[0][1]:
        return points[0][0]
    for low, high in pairwise(points):
        if low[1] < quality <= high[1]:
            return _on_line(quality, low, high)
    if len(points) < 2 or points[-1][1] <= points[-2][1]:
        return math.inf
    return _on_line(quality, *points[-2:])


def _on_line(quality: float, low: tuple[int, float], high: tuple[int, float]) -> float:
    """Return where the line through two points reaches a quality."""
    share = (quality - low[1]) / (high[1] - low[1])
    try:
        return float(low[0] * (high[0] / low[0]) ** share)
    except OverflowError:
        return math.inf


def worth(quality: float, curve: Mapping[int, float], iters: int, alone: float) -> float:
    """Return the share of its budget that a member alone takes to a quality.

    Args:
        quality: to reach, on the judging seeds.
        curve: quality by length, on the choosing seeds.
        iters: the budget.
        alone: quality at the budget on the judging seeds, to which the curve is shifted.
    """
    return length_to(quality - (alone - curve[iters]), curve) / iters


def skip_bound(costs: Sequence[float], skipped: Sequence[float]) -> float:
    """Return the most that a chain can save if growth and restart cost nothing.

    Args:
        costs: of every member alone.
        skipped: the share of its training alone after which each is as good as the one that it
            grows from; 0 for the first, and less where that trains for longer than alone.
    """
    left = sum(cost * (1 - share) for cost, share in zip(costs, skipped, strict=True))
    return sum(costs) / left
