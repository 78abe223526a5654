"""Declare how several processes share a stage's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compt.config.keys import Section, key


@dataclass(frozen=True, kw_only=True)
class Parallel(Section):
    """How several processes share a model; one process alone has all of it."""


@dataclass(frozen=True, kw_only=True)
class Replicated(Parallel):
    """Every process holds the whole model."""


@dataclass(frozen=True, kw_only=True)
class Sharded(Parallel):
    """Every process holds a share of weights, gradients and optimizer state."""

    processes: int | None = key(
        None,
        help="processes that share one copy of the weights, such as those of one machine; the "
        "number of all processes is a multiple of it, and further copies are replicas (hybrid "
        "sharding)",
        minimum=1,
        shown_default="all",
    )
    reshard: bool = key(
        True,
        help="`True`: a block's weights are freed after its forward pass and gathered again for "
        "its backward pass; `False` keeps them, which takes more memory and sends less",
    )
    gather: Literal["fp32", "bf16"] = key(
        "fp32",
        help="number format in which the weights of blocks are sent and used; `'bf16'` halves what "
        "is sent and belongs with `precision='bf16'`. Gradients are summed, and weights and "
        "optimizer kept, in float32",
    )
    teacher: Literal["whole", "sharded"] = key(
        "whole", help="whether every process holds the whole frozen teacher, or a share of it too"
    )


PARALLELS: Mapping[str, type[Parallel]] = {"ddp": Replicated, "fsdp": Sharded}
"""Ways by the ``type`` that a config gives."""
