"""Say how long a grown member has to be trained, by what its source is worth to it.

A source is worth the share ``s`` of a member's length that the member alone takes to as good a
result. Trained for the share ``b`` of its length, the grown member is then worth ``s + b - FADING *
s * b``: the new stage overwrites what it has inherited, the more so the longer it is. With a
``FADING`` of 1 a stage would close the share ``b`` of what is left, whatever the source is worth.
"""

from __future__ import annotations

FADING = 0.93
"""Of what a source is worth, the share that a stage as long as alone overwrites.

From the hops of docs/study.md, by least squares (``benchmarks/map.py`` prints it). The one place to
change once it is measured anew."""

FADING_DEVIATION = 0.07
"""Standard deviation of the same over those hops."""

MOST = 0.99
"""Highest that is reckoned with: from 1 on, no stage would do where the source is worth most."""


def worth_after(share: float, skipped: float, fading: float = FADING) -> float:
    """Return the share of its length alone that a grown member is worth.

    Args:
        share: of its length that it is trained for.
        skipped: share of its length that its source is worth.
        fading: see :data:`FADING`.
    """
    return skipped + share * _yield(skipped, fading)


def share_for(worth: float, skipped: float, fading: float = FADING) -> float:
    """Return the share of its length that a grown member has to be trained for.

    No more than from scratch, and nothing where its source is worth as much.

    Args:
        worth: share of its length alone that it has to be worth.
        skipped: share of its length that its source is worth.
        fading: see :data:`FADING`.
    """
    return min(worth, max(0.0, worth - skipped) / _yield(skipped, fading))


def _yield(skipped: float, fading: float) -> float:
    """Return what training for one length is worth."""
    return 1 - min(MOST, fading) * min(1.0, skipped)
