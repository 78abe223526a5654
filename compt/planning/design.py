"""Choose members, budgets and rates of a chain, by how its members learn alone.

A grown member begins where its own curve alone crosses its source's loss, at ``tau`` of its length.
How long it then takes, :mod:`compt.planning.fading` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compt.planning.fading import FROM_END, Fading
from compt.planning.lengths import Lengths
from compt.planning.rule import required_step

LONGEST = 2.0
"""Times its own length that a member may be worth, so that the next has less left to learn."""
SHORT, SHORT_RATE = 0.25, 0.5
"""Share of its length below which a grown member learns better at another rate, and that rate.

For language models at 1/8 of the length half the rate was better by 0.016 nats, at 1/2 worse by as
much: docs/study_short.md."""
WORTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 1.75, LONGEST)
"""Shares of its own length, in worth, after which a member's training may end."""


@dataclass(frozen=True)
class Candidate:
    """One member that a chain may have."""

    name: str
    flops: float
    """Of its training alone."""
    lengths: Lengths
    wanted: bool = True
    fading: Fading = FROM_END
    """What its stage overwrites, where it is grown."""


@dataclass(frozen=True)
class Stop:
    """One member of a chain, and where its training ends."""

    index: int
    """Among the candidates."""
    worth: float
    """Share of its own length that it would take alone to be as good."""


Path = tuple[Stop, ...]
"""The members of a chain, small to large."""


class Family:
    """The members of a family, small to large, as they learn alone.

    Args:
        candidates: the members, at least one of them wanted.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = tuple(candidates)

    @property
    def wanted_flops(self) -> float:
        """FLOPs of all wanted members alone."""
        return sum(member.flops for member in self.candidates if member.wanted)

    def loss(self, stop: Stop, draw: int = 0) -> float:
        """Return the loss of a member at its end."""
        return self.candidates[stop.index].lengths.loss(stop.worth, draw)

    def skipped(self, source: Stop, target: Stop, draw: int = 0) -> float:
        """Return tau, the share of its length alone that a source saves a member."""
        return self.candidates[target.index].lengths.share_to(self.loss(source, draw), draw)

    def shares(self, path: Path, draw: int = 0, deviations: float = 0.0) -> list[float]:
        """Return how long each member is to be trained, as shares of their own lengths.

        Args:
            path: the members.
            draw: of their laws.
            deviations: by which stages overwrite more than is reckoned with.
        """
        grown = [self._share(source, stop, draw, deviations) for source, stop in pairwise(path)]
        return [path[0].worth, *grown]

    def flops(self, path: Path) -> float:
        """Return the FLOPs of a chain."""
        shares = zip(path, self.shares(path), strict=True)
        return sum(self.candidates[stop.index].flops * share for stop, share in shares)

    def _share(self, source: Stop, target: Stop, draw: int = 0, deviations: float = 0.0) -> float:
        fading = self.candidates[target.index].fading.moved(deviations)
        return fading.share_for(target.worth, self.skipped(source, target, draw))

    def cheapest(self, longest: float = LONGEST) -> Path:
        """Return the chain that takes least compute to all wanted members.

        These are to be as good as alone, and better than the one they grow from by most of what
        parts the two alone; where no chain can have that order, the order is not asked for. Other
        members may be left out, or end early.

        Args:
            longest: times its own length that a member may be worth.
        """
        return self._cheapest(longest, True) or self._cheapest(longest, False)

    def _cheapest(self, longest: float, in_order: bool) -> Path:
        """Return the cheapest path, found from small to large, () where there is none."""
        last = max(i for i, member in enumerate(self.candidates) if member.wanted)
        best: dict[Stop, tuple[float, Path]] = {}
        for stop in self._stops(last, longest):
            own = self.candidates[stop.index].flops
            ways: list[tuple[float, Path]] = (
                [(own * stop.worth, (stop,))] if not self._wanted_between(-1, stop.index) else []
            )
            for source, (flops, path) in best.items():
                if self._may_follow(source, stop, in_order):
                    share = self._share(source, stop)
                    ways.append((flops + own * share, (*path, stop)))
            if ways:
                best[stop] = min(ways, key=lambda way: way[0])
        ends = [way for stop, way in best.items() if stop.index == last]
        return min(ends, key=lambda way: way[0])[1] if ends else ()

    def _stops(self, last: int, longest: float) -> Iterator[Stop]:
        for index, member in enumerate(self.candidates[: last + 1]):
            for worth in WORTHS:
                if worth <= longest and (worth >= 1 or not member.wanted):
                    yield Stop(index, worth)

    def _wanted_between(self, source: int, target: int) -> bool:
        return any(member.wanted for member in self.candidates[source + 1 : target])

    def _may_follow(self, source: Stop, target: Stop, in_order: bool) -> bool:
        if source.index >= target.index or self._wanted_between(source.index, target.index):
            return False
        return not in_order or self.loss(target) <= self.loss(source) - self._step(source, target)

    def _step(self, source: Stop, target: Stop) -> float:
        """Return by how much a member has to beat the one that it grows from, 0 if not wanted."""
        if not self.candidates[target.index].wanted:
            return 0.0
        alone, alone_source = (self.loss(Stop(stop.index, 1.0)) for stop in (target, source))
        return required_step(-alone, -alone_source, -self.loss(source))
