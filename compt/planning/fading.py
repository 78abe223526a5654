"""Say how long a grown member has to be trained, by what its source is worth.

A source is worth the share ``s`` of a member's length that the member alone takes to as good a
result. Trained for the share ``b`` of its length, the grown member is then worth
``s + b (1 - c s^p)``: the new stage overwrites what it has inherited, the more so the longer it is.
With ``c`` and ``p`` of 1 a stage would close the share ``b`` of what is left, whatever the source
is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST = 0.99
"""Highest loss of a stage that is reckoned with.

From 1 on, no stage would do where the source is worth most.
"""


@dataclass(frozen=True)
class Fading:
    """What stages overwrite of what their sources are worth."""

    share: float
    """``c``: of a source that is as good as the member alone, what a stage as long as alone
    overwrites."""
    power: float = 1.0
    """``p``: how that grows with what the source is worth."""
    deviation: float = 0.0
    """Standard deviation of ``c`` over hops."""

    def worth_after(self, share: float, skipped: float) -> float:
        """Return the share of its length alone that a grown member is worth.

        Args:
            share: of its length that it is trained for.
            skipped: share of its length that its source is worth.
        """
        return skipped + share * self._yield(skipped)

    def share_for(self, worth: float, skipped: float) -> float:
        """Return the share of its length that a grown member has to be trained for.

        No more than from scratch, and nothing where its source is worth as much.

        Args:
            worth: share of its length alone that it has to be worth.
            skipped: share of its length that its source is worth.
        """
        return min(worth, max(0.0, worth - skipped) / self._yield(skipped))

    def moved(self, deviations: float) -> Fading:
        """Return it with another ``c``, so many standard deviations away, and no less than 0."""
        return replace(self, share=max(0.0, self.share + deviations * self.deviation))

    def _yield(self, skipped: float) -> float:
        """Return what training for one length is worth."""
        worth: float = min(1.0, skipped) ** self.power
        return 1 - min(MOST, self.share * worth)

    def __str__(self) -> str:
        return f"{self.share:.2f} ± {self.deviation:.2f}"


FROM_END = Fading(0.93, deviation=0.07)
"""Of stages that begin anew: their rate warms up, stays, and falls.

From the hops of docs/study.md, by least squares (``benchmarks/map.py`` prints it). The one place to
change once it is measured anew."""

FROM_PLATEAU = Fading(0.68, power=0.5, deviation=0.37)
"""Of stages that go on from their source's plateau and never decay, from the same page.

Hops differ much: those of four language models have 0.68, of five and seven 0.84 to below 0."""
