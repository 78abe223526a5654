"""Count the bytes that a stage writes."""

from __future__ import annotations

from dataclasses import dataclass

from compt.config import ChainConfig
from compt.planning.memory import StageMemory
from compt.planning.plans import StagePlan


@dataclass(frozen=True)
class Volume:
    """Bytes on the disk."""

    checkpoint: int
    """Of one checkpoint: weights, and what the optimizer remembers."""
    at_once: int
    """While a stage trains: the newest ones that are kept, and the next while it is written."""
    num_written: int
    """Checkpoints of the whole stage."""
    written: int
    """Of all of them."""
    left: int
    """Of a finished stage: weights, export, and what a grown member started from."""


def volume(config: ChainConfig, plan: StagePlan, memory: StageMemory) -> Volume:
    """Return what a stage writes, beside logs and reports.

    Args:
        config: of the chain.
        plan: of the stage.
        memory: of the stage.
    """
    options = config.checkpoint
    one = memory.weights + memory.optimizer
    num_written = -(-plan.iters // options.interval)
    at_once = min(num_written, options.keep + 1) * one
    copies = 2 + (plan.grower is not None)
    return Volume(one, at_once, num_written, num_written * one, copies * memory.weights)
