"""Growth by two operators: one for the width, another for the depth."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compt.errors import ConfigError
from compt.growth.operators import AxisGrower, ParamPair
from compt.growth.run import build_grower
from compt.interfaces import Architecture


class Compose(AxisGrower):
    """Grow every tensor's width by one grower, and choose and finish new blocks by another.

    Args:
        width: name or config of the grower whose ``expand`` is used.
        depth: name or config of the grower that picks the source's blocks and says what new ones
            are.
    """

    def __init__(self, *, width: str | Mapping[str, Any], depth: str | Mapping[str, Any]) -> None:
        self.width, self.depth = _axis_grower("width", width), _axis_grower("depth", depth)
        self.function_preserving = self.width.function_preserving and self.depth.function_preserving  # type: ignore[misc]

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where either grower cannot do its part."""
        self.width.check(source, target)
        self.depth.check_depth(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """As the grower of the depth."""
        self.depth.check_depth(source, target)

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Any:
        """As the grower of the width."""
        return self.width.prepare(source, archs, generator)

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """As the grower of the width."""
        return self.width.expand(source, target, pair)

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """As the grower of the depth."""
        return self.depth.source_block_index(block, source_depth, target_depth)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """As the grower of the depth."""
        return self.depth.init_new_block(value, target, pair)

    def without_noise(self) -> Compose:
        """As the grower of the width."""
        even = copy(self)
        even.width = self.width.without_noise()
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Those of the width at equal depth, and those of the depth at equal width."""
        wide, deep = replace(source, depths=target.depths), replace(source, sizes=target.sizes)
        found = [] if source.sizes == target.sizes else self.width.why_not_preserving(wide, target)
        return found + (
            [] if source.depths == target.depths else self.depth.why_not_preserving(deep, target)
        )


def _axis_grower(key: str, config: str | Mapping[str, Any]) -> AxisGrower:
    grower = build_grower(config)
    if not isinstance(grower, AxisGrower):
        raise ConfigError(
            f"{key}={config!r} grows whole models, not tensor by tensor.",
            where="grower compose",
            do="Use one that derives from compt.AxisGrower, such as 'clone', 'lossless', 'leading_block' or 'stack'.",
        )
    return grower
