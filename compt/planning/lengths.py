"""Tell how long a member alone takes to a loss, by the laws of its family."""

from __future__ import annotations

import numpy as np

from compt.planning.law import Laws
from compt.planning.rates import Floats, Schedule

LONGEST = 64
"""Times its own length that a member is followed, and that part of it at which that begins."""
PER_OCTAVE = 8


class Lengths:
    """The losses of one member alone, at the end of stages of many lengths.

    Args:
        laws: of the family.
        name: of the member.
        schedule: of its stages.
        own: iterations that it has alone.
    """

    def __init__(self, laws: Laws, name: str, schedule: Schedule, own: int) -> None:
        octaves = np.log2(LONGEST)
        shares = 2 ** np.linspace(-octaves, octaves, int(2 * octaves * PER_OCTAVE) + 1)
        iters = np.unique(np.maximum(1, np.round(shares * own)).astype(int))
        self._logs: Floats = np.log(iters / own)
        # A law with much weight on decay may turn at its ends; longer is never worse.
        finals = laws.finals(name, schedule, iters.tolist())
        self._losses: Floats = np.minimum.accumulate(finals, axis=1)

    @property
    def num_draws(self) -> int:
        """Draws of the laws."""
        return len(self._losses)

    def loss(self, share: float, draw: int = 0) -> float:
        """Return the loss after a share of the member's own length."""
        return float(np.interp(np.log(share), self._logs, self._losses[draw]))

    def share_to(self, loss: float, draw: int = 0) -> float:
        """Return the share of its own length after which the member is at a loss.

        inf where it never is within :data:`LONGEST` times its length.
        """
        losses = self._losses[draw]
        if loss < losses[-1]:
            return np.inf
        if loss >= losses[0]:
            return float(np.exp(self._logs[0]))
        return float(np.exp(np.interp(-loss, -losses, self._logs)))
