"""Say what a designed chain should save, how surely, and what bounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from compt.planning.design import Family, Path, Stop
from compt.planning.fading import Fading
from compt.planning.law import Laws
from compt.planning.plans import ChainPlan
from compt.planning.rates import Floats
from compt.planning.rule import APART, LONGER

LEVEL = 0.8
"""Of all intervals."""

Range = tuple[float, float]
"""Both ends of an interval."""
Verdict = Literal["pays", "does not pay", "alone", "not apart", "no family"]


@dataclass(frozen=True)
class MemberForecast:
    """One member of the family, alone and in the chain."""

    name: str
    wanted: bool
    loss: float
    """Alone, at its own length."""
    loss_range: Range
    gap: float | None
    """By which it is better than the member before it, alone; None for the smallest."""
    gap_error: float | None
    """Its standard error."""
    source: str | None = None
    """What it is grown from, None where it is not."""
    tau: float | None = None
    """Share of its length alone that its source saves, at most 1; None where it is not grown."""
    share: float | None = None
    """Of its length alone that it is trained for; None where it is left out."""
    share_range: Range | None = None
    lr_mult: float = 1.0
    """Of its learning rate alone."""


@dataclass(frozen=True)
class Padding:
    """What comes of stopping at a member, training it longer, and padding it to all the others."""

    name: str
    """Of the member."""
    longer: float
    """Times its own length until it is as good as the largest alone."""
    ratio: float
    """Of the compute of all wanted members alone to that."""


@dataclass(frozen=True)
class Forecast:
    """A chain as designed, beside its wanted members alone."""

    members: tuple[MemberForecast, ...]
    """All candidates, small to large."""
    flops: float
    """Of the chain."""
    alone_flops: float
    """Of all wanted members alone."""
    pilot_flops: float
    ratio: float
    """Of the second to the first."""
    ratio_range: Range
    skip_bound: float
    """The ratio if a hop cost nothing and no member were trained longer than alone."""
    downward_bound: float
    """The ratio if all were had by shrinking the largest, for nothing."""
    padding: Padding | None
    """The best of its kind, None where no smaller member gets as good as the largest."""
    smallest_longer: float
    """Loss of the smallest member, trained :data:`compt.planning.rule.LONGER` times as long."""
    catches_up: float
    """Share of the draws in which that is as good as the largest alone."""
    fadings: tuple[Fading, ...]
    """What its stages are taken to overwrite, each once."""
    law_errors: dict[str, float]
    """Relative standard deviation of each member's pilots about its law."""
    alpha: float
    foretold_error: float | None
    """By how much a law of the shorter pilots misses the longest ones, None where unknown."""

    @property
    def charged_ratio(self) -> float:
        """The ratio where the pilots count as compute of the chain."""
        return self.alone_flops / (self.flops + self.pilot_flops)

    @property
    def too_close(self) -> tuple[MemberForecast, ...]:
        """Members that are not surely better than the one before them."""
        return tuple(member for member in self.members if not _is_apart(member))

    @property
    def verdict(self) -> Verdict:
        """Whether there is a family, and whether its chain pays, pilots charged."""
        if self.catches_up >= LEVEL:
            return "no family"
        if sum(member.share is not None for member in self.members) == 1:
            return "alone"
        if self.too_close or self.catches_up > 1 - LEVEL:
            return "not apart"
        return "pays" if self.charged_ratio > 1 else "does not pay"

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain types."""
        derived = {"charged_ratio": self.charged_ratio, "verdict": self.verdict, "level": LEVEL}
        return {**asdict(self), **derived}


def _is_apart(member: MemberForecast) -> bool:
    if member.gap is None or member.gap_error is None:
        return True
    return member.gap > 0 and member.gap >= APART * member.gap_error


def forecast(
    family: Family, path: Path, chain: ChainPlan, laws: Laws, pilot_flops: float, *, seed: int = 0
) -> Forecast:
    """Forecast a chain.

    Its interval is over the draws of the laws and over what stages overwrite, which is taken to err
    alike in all of them.

    Args:
        family: its members.
        path: the chain, as designed.
        chain: its plan.
        laws: of the members.
        pilot_flops: of the runs that these were fitted to.
        seed: of what is drawn.
    """
    num_draws = len(laws.alphas)
    errors = np.random.default_rng(seed).standard_normal(num_draws).tolist()
    draws = range(1, num_draws)
    shares = np.array([family.shares(path, draw, errors[draw]) for draw in draws])
    own = np.array([family.candidates[stop.index].flops for stop in path])
    # What a chain costs beside training members, such as teachers, goes with the training.
    charged = chain.flops / family.flops(path)
    wanted = [member.flops for member in family.candidates if member.wanted]
    return Forecast(
        members=_members(family, path, shares, [stage.lr_mult for stage in chain.stages]),
        flops=chain.flops,
        alone_flops=family.wanted_flops,
        pilot_flops=pilot_flops,
        ratio=family.wanted_flops / chain.flops,
        ratio_range=_range(family.wanted_flops / (shares @ own * charged)),
        skip_bound=skip_bound(family),
        downward_bound=family.wanted_flops / max(wanted),
        padding=_padding(family, path),
        smallest_longer=family.candidates[0].lengths.loss(LONGER),
        catches_up=_catches_up(family),
        fadings=tuple(dict.fromkeys(family.candidates[stop.index].fading for stop in path[1:])),
        law_errors=dict(laws.errors),
        alpha=float(laws.alphas[0]),
        foretold_error=laws.foretold_error,
    )


def skip_bound(family: Family) -> float:
    """Return the ratio of a chain whose hops cost nothing."""
    free = Family([replace(member, fading=Fading(0.0)) for member in family.candidates])
    return free.wanted_flops / free.flops(free.cheapest(longest=1.0))


def _members(
    family: Family, path: Path, shares: Floats, rates: Sequence[float]
) -> tuple[MemberForecast, ...]:
    """Return all members of a family.

    Args:
        family: the members.
        path: those of the chain.
        shares: of their lengths that they are trained for, by draw and member of the chain.
        rates: of the chain's members, relative to their own alone.
    """
    members = _alone(family)
    for place, (stop, share) in enumerate(zip(path, family.shares(path), strict=True)):
        alone, ends = members[stop.index], _range(shares[:, place])
        members[stop.index] = replace(alone, share=share, share_range=ends, lr_mult=rates[place])
    for source, stop in pairwise(path):
        name, tau = family.candidates[source.index].name, min(1.0, family.skipped(source, stop))
        members[stop.index] = replace(members[stop.index], source=name, tau=tau)
    return tuple(members)


def _alone(family: Family) -> list[MemberForecast]:
    draws = range(family.candidates[0].lengths.num_draws)
    candidates = family.candidates
    losses = [[member.lengths.loss(1.0, draw) for draw in draws] for member in candidates]
    gaps: list[tuple[float | None, float | None]] = [(None, None)]
    for smaller, larger in pairwise(np.array(losses)):
        gap = smaller - larger
        gaps.append((float(gap[0]), float(gap[1:].std())))
    return [
        MemberForecast(member.name, member.wanted, own[0], _range(own[1:]), *gap)
        for member, own, gap in zip(candidates, losses, gaps, strict=True)
    ]


def _catches_up(family: Family) -> float:
    """Return how surely the smallest member, trained longer, is as good as the largest."""
    smallest, largest = family.candidates[0].lengths, family.candidates[-1].lengths
    draws = range(1, smallest.num_draws)
    return float(np.mean([smallest.loss(LONGER, d) <= largest.loss(1.0, d) for d in draws]))


def _padding(family: Family, path: Path) -> Padding | None:
    """Return the cheapest way to stop at a member that is then as good as the largest alone."""
    goal = family.loss(Stop(path[-1].index, 1.0))
    ways = []
    for place, stop in enumerate(path[:-1]):
        longer = family.candidates[stop.index].lengths.share_to(goal)
        if math.isfinite(longer):
            stopped = (*path[:place], Stop(stop.index, longer))
            ratio = family.wanted_flops / family.flops(stopped)
            ways.append(Padding(family.candidates[stop.index].name, longer, ratio))
    return max(ways, key=lambda way: way.ratio, default=None)


def _range(values: Any) -> Range:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
