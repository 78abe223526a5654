"""Foresee what training steps of other sizes take, from those that were timed.

A step takes a fixed time (its operators are started, its batch is fetched) and a time for its
FLOPs. Small members spend most of it on the first, so that their FLOPs a second tell little of
larger ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SPREAD = 1.5
"""Least ratio of FLOPs a step at which two sizes tell fixed time and time for FLOPs apart."""
MOST_FIXED = 0.5
"""Of the time of a step of the largest size that was timed, as far as it is taken for fixed.

Where a machine does other things beside, a larger step may have taken no longer than a smaller one.
"""


@dataclass(frozen=True)
class Steps:
    """Training steps of one size."""

    iters: float
    flops: float
    """Of all of them."""


@dataclass(frozen=True)
class Timed(Steps):
    """Training steps that were timed."""

    seconds: float
    """Of all of them, without evaluations."""

    @property
    def flops_a_step(self) -> float:
        """The size of one."""
        return self.flops / self.iters


class Estimate(NamedTuple):
    """What steps will take."""

    seconds: float
    is_bound: bool
    """Whether it is the most that they may take, as only one size was timed."""


class StepCosts:
    """Fits the two times to the stages of a run, or to those of another one.

    Args:
        elsewhere: stages of another run on the same machine. They tell how time grows with size
            until the run's own stages do; its pace now is the run's own.
    """

    def __init__(self, elsewhere: Iterable[Timed] = ()) -> None:
        self._elsewhere = [steps for steps in elsewhere if steps.iters and steps.seconds]
        self._own: dict[str, Timed] = {}
        """By stage, the one that was timed last at the end."""

    def take(self, stage: str, steps: Timed) -> None:
        """Take steps of a stage, in place of what was known of it."""
        if steps.iters > 0 and steps.seconds > 0:
            self._own.pop(stage, None)
            self._own[stage] = steps

    def estimate(self, stages: Sequence[Steps]) -> Estimate | None:
        """Return what stages will take together, None before anything is timed.

        Where one size was timed alone, that is for smaller steps as much as for its own, and for
        larger ones as much as at its FLOPs a second: a larger member hardly makes fewer.
        """
        own = [*self._own.values()]
        if _are_spread(own):
            return Estimate(sum(_seconds(_fit(own), steps) for steps in stages), False)
        if _are_spread(self._elsewhere):
            fit = _fit(self._elsewhere)
            pace = own[-1].seconds / _seconds(fit, own[-1]) if own else 1.0
            return Estimate(sum(pace * _seconds(fit, steps) for steps in stages), False)
        timed = own or self._elsewhere
        return Estimate(sum(_most(timed[-1], steps) for steps in stages), True) if timed else None


def _are_spread(timed: Sequence[Timed]) -> bool:
    sizes = [steps.flops_a_step for steps in timed]
    return bool(sizes) and max(sizes) > SPREAD * min(sizes)


def _fit(timed: Sequence[Timed]) -> tuple[float, float]:
    """Return seconds a step and seconds a FLOP, of the least squared relative error.

    The former are not negative, and no more of a step than MOST_FIXED.
    """
    pairs = [(steps.iters / steps.seconds, steps.flops / steps.seconds) for steps in timed]
    iters, flops = (sum(values) for values in zip(*pairs, strict=True))
    iters2, flops2 = sum(i * i for i, _ in pairs), sum(f * f for _, f in pairs)
    mixed = sum(i * f for i, f in pairs)
    a_step = (iters * flops2 - flops * mixed) / (iters2 * flops2 - mixed * mixed)
    if a_step < 0:
        return 0.0, flops / flops2
    largest = max(timed, key=lambda steps: steps.flops_a_step)
    most = MOST_FIXED * largest.seconds / largest.iters
    if a_step > most:
        return most, (1 - MOST_FIXED) * largest.seconds / largest.flops
    return a_step, (iters - a_step * iters2) / mixed


def _seconds(fit: tuple[float, float], steps: Steps) -> float:
    a_step, a_flop = fit
    return steps.iters * a_step + steps.flops * a_flop


def _most(timed: Timed, steps: Steps) -> float:
    """Return the most that steps may take, where those of one other size were timed."""
    a_step = timed.seconds / timed.iters
    a_flop = timed.seconds / timed.flops if timed.flops else 0.0
    return max(steps.iters * a_step, steps.flops * a_flop)
