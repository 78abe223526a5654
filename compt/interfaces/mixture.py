"""What a data set says of the sources that it is mixed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from compt.errors import ConfigError


@dataclass(frozen=True)
class Mixture:
    """The parts of a data set, which lie in it one after the other.

    A data set says it in an attribute ``mixture``; training draws from the parts by their weights.
    """

    lengths: tuple[int, ...]
    """Samples of each part."""
    weights: tuple[float, ...] | None = None
    """Share of the draws that each part has, up to a common factor.

    None draws every sample of every part as often as any other.
    """


def shares(weights: Sequence[Any], num_parts: int) -> list[Fraction]:
    """Return weights as exact shares of one, or raise ConfigError where they cannot be."""
    numbers = [w for w in weights if isinstance(w, int | float) and not isinstance(w, bool)]
    fine = len(numbers) == len(weights) == num_parts and all(0 <= w < math.inf for w in numbers)
    if not fine or not sum(numbers):
        raise ConfigError(
            f"weights={list(weights)!r} are not {num_parts} numbers from 0 on, of which one is "
            "above 0.",
            where="weights",
            do="Give each of the mixture's sources one.",
        )
    exact = [Fraction(weight) for weight in numbers]
    return [weight / sum(exact) for weight in exact]
