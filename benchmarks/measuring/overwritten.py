"""Find in rows how much of what a source is worth a stage overwrites: the planner's ``FADING``.

The searches of chains have trained every grown member for several shares of its budget. Each is a
point: what the source is worth (s), the share (b), and what the member then is worth (w), all in
budgets of the member alone, on the choosing seeds. ``s + b - w`` is what the hop has cost.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compt.planning.fading import share_for, worth_after
from measuring.curves import length_to


@dataclass(frozen=True)
class Point:
    """One hop, for one share of the budget, at the best of its rates."""

    iters: int
    hop: tuple[str, str]
    share: float
    source: float
    """Share of its budget that the member alone takes to its source's quality."""
    worth: float
    """And to its own."""

    @property
    def cost(self) -> float:
        """Share of the budget that was lost."""
        return self.source + self.share - self.worth

    @property
    def fading(self) -> float:
        """Of the source's worth, the share that a stage of the whole budget would overwrite."""
        return self.cost / (self.source * self.share)


def points(row: Mapping[str, Any]) -> Iterator[Point]:
    """Yield all points of a row; those of rows whose chain was not searched for are none."""
    found = row.get("search")
    if not found:
        return
    names = [member["name"] for member in row["members"]]
    for place, tried in enumerate(found["tried"]):
        lengths = {int(length): quality for length, quality in row["curves"][place + 1].items()}
        source = length_to(found["sources"][place], lengths) / row["iters"]
        best: dict[float, float] = {}
        for setting, gain in tried.items():
            share, quality = float(setting.partition(" ")[0]), found["goals"][place] + gain
            best[share] = max(quality, best.get(share, quality))
        for share, quality in sorted(best.items()):
            worth = length_to(quality, lengths) / row["iters"]
            hop = names[place], names[place + 1]
            yield Point(row["iters"], hop, share, source, worth)


def fitted(of: Sequence[Point]) -> float:
    """Return the ``FADING`` that explains what points have cost, by least squares."""
    products = [point.source * point.share for point in of]
    costs = [point.cost for point in of]
    above = sum(product * cost for product, cost in zip(products, costs, strict=True))
    return above / sum(product**2 for product in products)


def foretold(row: Mapping[str, Any], fading: float) -> float:
    """Return the ratio of a chain whose members are as good as alone, and no better, by the law."""
    alone: list[float] = [member["alone_flops"] for member in row["members"]]
    shares = [1.0, *(share_for(1.0, skipped, fading) for skipped in row["skipped"][1:])]
    return sum(alone) / sum(cost * share for cost, share in zip(alone, shares, strict=True))


def deviation(of: Sequence[Point]) -> float:
    """Return its standard deviation over hops, each taken as one, 0 of one hop."""
    hops: dict[tuple[int, tuple[str, str]], list[float]] = {}
    for point in of:
        hops.setdefault((point.iters, point.hop), []).append(point.fading)
    means = list(map(statistics.mean, hops.values()))
    return statistics.stdev(means) if len(means) > 1 else 0.0


def miss(of: Sequence[Point], fading: float) -> float:
    """Return the root of the mean squared error of members' worths by a ``FADING``."""
    errors = [worth_after(point.share, point.source, fading) - point.worth for point in of]
    return math.sqrt(statistics.mean(error**2 for error in errors))
