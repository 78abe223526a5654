"""Find in rows how much of what a source is worth a stage overwrites, which plans reckon with.

The searches of chains have trained every grown member for several shares of its budget. Each is a
point: what the source is worth (s), the share (b), and what the member then is worth (w), all in
budgets of the member alone, on the choosing seeds. ``s + b - w`` is what the hop has cost. See
:mod:`compt.planning.fading`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compt.planning.fading import FROM_END, FROM_PLATEAU, Fading
from measuring.curves import length_to, worth
from measuring.show import text_of

ANEW, PLATEAUS, BEFORE_DECAY = "anew", "plateaus", "before a decay"
"""Kinds of hops: whose stage begins anew; between plateaus, with no decay on either side; and from
the plateau of a source that decays after it."""
POWERS = {ANEW: FROM_END.power, PLATEAUS: FROM_PLATEAU.power, BEFORE_DECAY: FROM_END.power}
"""Of the law of every kind."""


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
    kind: str = ANEW

    @property
    def cost(self) -> float:
        """Share of the budget that was lost."""
        return self.source + self.share - self.worth

    @property
    def product(self) -> float:
        """What the law takes to be lost, with a ``c`` of 1."""
        worth: float = self.source ** POWERS[self.kind]
        return worth * self.share

    @property
    def fading(self) -> float:
        """The law's ``c``."""
        return self.cost / self.product


def points(row: Mapping[str, Any]) -> Iterator[Point]:
    """Yield all points of a row, of the ways to grow that its hops have chosen.

    Those of rows whose chain was not searched for are none.
    """
    found = row.get("search")
    if not found:
        return
    names = [member["name"] for member in row["members"]]
    for place, (tried, kind) in enumerate(zip(found["tried"], kinds(row), strict=True)):
        lengths = {int(length): quality for length, quality in row["curves"][place + 1].items()}
        source = length_to(found["sources"][place], lengths) / row["iters"]
        way = text_of(_ways(row)[place])
        best: dict[float, float] = {}
        for setting, gain in tried.items():
            rate, _, by = setting.partition(" by ")
            if by in ("", way):
                share, quality = float(rate.partition(" ")[0]), found["goals"][place] + gain
                best[share] = max(quality, best.get(share, quality))
        for share, quality in sorted(best.items()):
            reached = length_to(quality, lengths) / row["iters"]
            hop = names[place], names[place + 1]
            yield Point(row["iters"], hop, share, source, reached, kind)


def kinds(row: Mapping[str, Any]) -> list[str]:
    """Return the kind of every hop."""
    ways = _ways(row)
    sources = [row.get("grown_by", [{}])[0], *ways]
    return [_kind(source, way) for source, way in zip(sources, ways, strict=False)]


def _kind(source: Mapping[str, Any], way: Mapping[str, Any]) -> str:
    if not way.get("trunk") or _decays(way):
        return ANEW
    return BEFORE_DECAY if _decays(source) else PLATEAUS


def _ways(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return how each grown member was grown, which is as all of them where none had a choice."""
    chosen: Sequence[Mapping[str, Any]] = row.get("grown_by", [])[1:]
    return chosen or [row] * (len(row["members"]) - 1)


def _decays(way: Mapping[str, Any]) -> bool:
    """Tell whether the rate of a member that is grown so falls to its end.

    Families that have other schedules in the chain than alone deliver an average instead.
    """
    decays: bool = way.get("grown", {}).get("decay", "average" not in way)
    return decays


def fitted(of: Sequence[Point]) -> float:
    """Return the ``c`` that explains what points of one kind have cost, by least squares."""
    above = sum(point.product * point.cost for point in of)
    return above / sum(point.product**2 for point in of)


def foretold(row: Mapping[str, Any], law: Mapping[str, float]) -> float:
    """Return the ratio of a chain whose members are as good as alone, and no better.

    Nothing of the chain is read but how its members are grown, as a plan would know it.

    Args:
        row: with the curves and the means of all members alone.
        law: ``c`` by kind of hop.
    """
    sign = 1 if row["higher_is_better"] else -1
    costs: list[float] = [member["alone_flops"] for member in row["members"]]
    means = [sign * statistics.mean(member["alone"]) for member in row["members"]]
    shares = [1.0]
    for index, kind in enumerate(kinds(row), start=1):
        curve = {int(length): quality for length, quality in row["curves"][index].items()}
        skipped = min(1.0, worth(means[index - 1], curve, row["iters"], means[index]))
        shares.append(Fading(law[kind], POWERS[kind]).share_for(1.0, skipped))
    return sum(costs) / sum(cost * share for cost, share in zip(costs, shares, strict=True))


def deviation(of: Sequence[Point]) -> float:
    """Return its standard deviation over hops, each taken as one, 0 of one hop."""
    hops: dict[tuple[int, tuple[str, str]], list[float]] = {}
    for point in of:
        hops.setdefault((point.iters, point.hop), []).append(point.fading)
    means = list(map(statistics.mean, hops.values()))
    return statistics.stdev(means) if len(means) > 1 else 0.0


def miss(of: Sequence[Point], law: Mapping[str, float]) -> float:
    """Return the root of the mean squared error of members' worths by a ``c`` for every kind."""
    errors = [law[point.kind] * point.product - point.cost for point in of]
    return math.sqrt(statistics.mean(error**2 for error in errors))
