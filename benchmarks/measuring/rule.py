"""Judge a family by a rule that was set before anything was measured.

Qualities are numbers that are to rise, by seed; runs of the same seed are paired.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from scipy.stats import t

from compt.planning.rule import APART, required_step

Qualities = Sequence[float]
"""Of one member, by seed."""

MARGIN = 0.1
"""What a member may be worse than alone, as a share of its gap to the nearer neighbour."""
CONFIDENCE = 0.95
"""One-sided, that it is not worse than that."""
SEEDS, MORE_SEEDS = 5, 8
"""Seeds that judge, and that do where the interval is wider than the margin."""


@dataclass(frozen=True)
class Gate:
    """Whether larger is better, so that there is a family at all."""

    gaps: tuple[float, ...]
    """By which each member beats the one before it, alone."""
    errors: tuple[float, ...]
    """Their standard errors."""
    smallest_longer: float
    """Mean quality of the smallest member, trained ``LONGER`` times as long."""
    largest: float
    """Mean quality of the largest member alone."""

    @property
    def apart(self) -> tuple[bool, ...]:
        """Tell of each pair of neighbours whether the larger is better, beyond doubt.

        One seed has no standard error, and tells nothing apart.
        """
        pairs = zip(self.gaps, self.errors, strict=True)
        return tuple(gap > 0 and gap >= APART * error for gap, error in pairs)

    @property
    def catches_up(self) -> bool:
        """Whether the smallest may reach the largest when it is only trained for longer.

        What diverged has not shown that it stays below.
        """
        stays_below = math.isfinite(self.smallest_longer) and self.smallest_longer < self.largest
        return not stays_below

    @property
    def open(self) -> bool:
        """Whether it is a family."""
        return all(self.apart) and not self.catches_up

    def to_json(self) -> dict[str, Any]:
        """Return what was compared, and what it comes to."""
        verdicts = {"apart": self.apart, "catches_up": self.catches_up, "open": self.open}
        return asdict(self) | verdicts


@dataclass(frozen=True)
class Verdict:
    """What one member of a chain comes to beside the same member alone."""

    gain: float
    """Mean of its quality less that alone."""
    lower: float
    """One-sided lower bound of the gain."""
    margin: float
    """What the gain may fall below zero."""
    step: float
    """Mean of its quality less that of the member it grew from; 0 for the first."""
    step_lower: float
    """One-sided lower bound of the step."""
    required_step: float
    """See :func:`compt.planning.rule.required_step`.

    0 for the first member, and above 0 for all others.
    """

    @property
    def as_good(self) -> bool:
        """Whether it is not inferior to the member alone."""
        return self.lower >= -self.margin

    @property
    def in_order(self) -> bool:
        """Whether it beats the member that it grew from by what is asked, and beyond doubt."""
        return self.required_step == 0 or (self.step >= self.required_step and self.step_lower > 0)

    @property
    def is_wide(self) -> bool:
        """Whether the interval of the gain is wider than the margin, so that more seeds judge."""
        return self.gain - self.lower > self.margin

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and what they come to."""
        return asdict(self) | {"as_good": self.as_good, "in_order": self.in_order}


def gate(alone: Sequence[Qualities], smallest_longer: Qualities) -> Gate:
    """Check whether members alone are a family.

    Args:
        alone: qualities of every member at its budget, small to large.
        smallest_longer: of the smallest, trained ``LONGER`` times as long.
    """
    steps = [_differences(larger, smaller) for smaller, larger in pairwise(alone)]
    return Gate(
        gaps=tuple(map(statistics.mean, steps)),
        errors=tuple(map(standard_error, steps)),
        smallest_longer=statistics.mean(smallest_longer),
        largest=statistics.mean(alone[-1]),
    )


def margins(alone: Sequence[Qualities]) -> list[float]:
    """Return what each member may be worse than alone."""
    means = list(map(statistics.mean, alone))
    gaps = [abs(larger - smaller) for smaller, larger in pairwise(means)]
    nearer = [gaps[0], *(min(pair) for pair in pairwise(gaps)), gaps[-1]]
    return [MARGIN * gap for gap in nearer]


def judge(alone: Sequence[Qualities], chain: Sequence[Qualities]) -> list[Verdict]:
    """Compare every member of a chain with the same member alone, small to large.

    Args:
        alone: qualities by member and seed.
        chain: those of the chain, of the same seeds.
    """
    verdicts = []
    for i, (margin, own, grown) in enumerate(zip(margins(alone), alone, chain, strict=True)):
        gains = _differences(grown, own)
        step = step_lower = required = 0.0
        if i:
            steps = _differences(grown, chain[i - 1])
            step, step_lower = statistics.mean(steps), lower_bound(steps)
            # A source that has overtaken its target leaves nothing to beat, but the order still
            # has to hold: the smallest positive number asks for more than the source has.
            required = max(
                required_step(*map(statistics.mean, (own, alone[i - 1], chain[i - 1]))),
                math.ulp(0.0),
            )
        verdicts.append(
            Verdict(statistics.mean(gains), lower_bound(gains), margin, step, step_lower, required)
        )
    return verdicts


def lower_bound(differences: Qualities, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided lower bound of a mean by Student's t, -inf of one value.

    Differences of runs with themselves are all 0, and so is their bound, of one value as well.
    """
    mean = statistics.mean(differences)
    if not any(differences):
        return mean
    if len(differences) < 2:
        return -math.inf
    quantile = float(t.ppf(confidence, len(differences) - 1))
    return mean - quantile * standard_error(differences)


def expected_width(spread: float) -> float:
    """Return how far the bound of a gain is expected to lie below its mean, on all seeds.

    As if runs of the same seed had nothing in common, and grown members differed as much.

    Args:
        spread: of the member alone, the standard deviation over seeds.
    """
    quantile = float(t.ppf(CONFIDENCE, MORE_SEEDS - 1))
    return quantile * spread * math.sqrt(2 / MORE_SEEDS)


def standard_error(values: Qualities) -> float:
    """Return the standard error of a mean, NaN of one value or where one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


def _differences(left: Qualities, right: Qualities) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]
