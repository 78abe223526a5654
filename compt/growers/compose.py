"""Grow by two operators, one for the width and another for the depth."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compt.growers._around import GrowerConfig, inner_grower
from compt.growth.operators import AxisGrower, ParamPair
from compt.interfaces import Architecture


class Compose(AxisGrower):
    """Grow every tensor's width by one grower, and choose and finish new blocks by another.

    Args:
        width: name or config of the grower whose ``expand`` is used.
        depth: name or config of the grower that picks the source's blocks and says what
            new ones are.
    """

    def __init__(self, *, width: str | GrowerConfig, depth: str | GrowerConfig) -> None:
        self.width = inner_grower(width, "width", "compose")
        self.depth = inner_grower(depth, "depth", "compose")
        aims_at_it = self.width.function_preserving and self.depth.function_preserving
        self.function_preserving = aims_at_it  # type: ignore[misc]

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where either grower cannot do its part."""
        self.width.check(source, target)
        self.depth.check_depth(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where the grower of the depth cannot fill the target's."""
        self.depth.check_depth(source, target)

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Any:
        """Make what the grower of the width shares between parameters."""
        return self.width.prepare(source, archs, generator)

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the value that the grower of the width makes."""
        return self.width.expand(source, target, pair)

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block that the grower of the depth chooses."""
        return self.depth.source_block_index(block, source_depth, target_depth)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Finish a value in a new block as the grower of the depth does."""
        return self.depth.init_new_block(value, target, pair)

    def without_noise(self) -> Compose:
        """Return this grower with nothing random in what the grower of the width inherits."""
        even = copy(self)
        even.width = self.width.without_noise()
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """List the reasons of either grower, each asked about its own direction alone."""
        reasons: list[str] = []
        if source.sizes != target.sizes:
            as_deep = replace(source, depths=target.depths)
            reasons += self.width.why_not_preserving(as_deep, target)
        if source.depths != target.depths:
            as_wide = replace(source, sizes=target.sizes)
            reasons += self.depth.why_not_preserving(as_wide, target)
        return reasons
