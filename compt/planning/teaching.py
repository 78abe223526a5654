"""Count how often a teacher is run."""

from __future__ import annotations

from itertools import count

from compt.interfaces import Transferer

MAX_SAMPLED = 100_000
"""Iterations at which a transferer is asked for its weight, where a stage has more."""


def count_asked(transferer: Transferer | None, iters: int, every: int = 1) -> int:
    """Count the iterations at which a stage wants to know what its teacher says.

    A plug-in's weight may fall in any way, so every iteration is asked; evenly spaced ones where
    they are too many to ask.

    Args:
        transferer: whose weight is not 0 then, None for none.
        iters: of the stage.
        every: the last of so many iterations has a teacher.
    """
    if transferer is None or not iters:
        return 0
    num_sampled = min(iters, MAX_SAMPLED)
    if num_sampled == iters:
        asked = range(every - 1, iters, every)
        return sum(transferer.strength(i / iters) > 0 for i in asked)
    weighted = sum(transferer.strength(i / num_sampled) > 0 for i in range(num_sampled))
    return round(weighted * iters / num_sampled / every)


def count_not_cached(asked: int, num_samples: int, batch_size: int) -> int:
    """Count the iterations at which a teacher is run whose outputs are kept by sample.

    A pass drops the samples behind its last full batch, others each time, and the batches that
    they are in later are run whole.

    Args:
        asked: iterations of the stage at which it wants outputs.
        num_samples: of the data.
        batch_size: over all processes.
    """
    per_pass = num_samples // batch_size
    if not per_pass:
        return asked
    never_seen, num_run, left = 1.0, 0.0, asked
    for _ in count():
        iters = min(left, per_pass)
        num_run += iters * (1 - (1 - never_seen) ** batch_size)
        left -= iters
        never_seen *= (num_samples % batch_size) / num_samples
        if not left or never_seen * num_samples < 1e-3:
            return round(num_run)
    return asked
