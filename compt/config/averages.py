"""Declare which average of its weights a stage delivers in the place of the last ones.

Lengths are shares of the stage, or iterations of it, never a momentum: members of a chain are
trained for very different lengths, and one momentum would average over all of a short stage and
the last moment of a long one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compt.config.faults import Faults
from compt.config.keys import Section, key
from compt.config.rates import iteration


def _check_length(value: float, name: str, faults: Faults) -> None:
    if isinstance(value, float) and value > 1:
        faults.add(
            f"{name}: {value!r} is no fraction of the stage, 0.0 to 1.0; iterations are whole "
            "numbers."
        )


@dataclass(frozen=True, kw_only=True)
class Average(Section, ABC):
    """An average over the weights after each iteration."""

    @abstractmethod
    def hook_options(self, iters: int) -> dict[str, Any]:
        """Return what :class:`compt.training.averaging.AverageHook` needs in a stage of so many."""


@dataclass(frozen=True, kw_only=True)
class ExponentialAverage(Average):
    """The mean in which weights count the less the longer ago they were."""

    half_life: float = key(
        help="iterations after which weights count half; a float is a fraction of the stage",
        positive=True,
        check=_check_length,
    )

    def hook_options(self, iters: int) -> dict[str, Any]:
        """Return the share of the newest weights, at most a half."""
        is_fraction = isinstance(self.half_life, float)
        half_life = self.half_life * iters if is_fraction else self.half_life
        return {"momentum": 1 - 0.5 ** (1 / max(1, half_life))}


@dataclass(frozen=True, kw_only=True)
class MeanAverage(Average):
    """The plain mean from some iteration on."""

    begin: float = key(
        help="iterations after which the first weights are taken; a float is a fraction of the "
        "stage",
        minimum=0,
        check=_check_length,
    )

    def hook_options(self, iters: int) -> dict[str, Any]:
        """Return the iterations after which the mean begins, at least one."""
        return {"begin_iter": max(1, iteration(self.begin, iters))}


AVERAGES: Mapping[str, type[Average]] = {"ema": ExponentialAverage, "mean": MeanAverage}
