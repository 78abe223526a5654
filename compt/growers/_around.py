"""Prepare a source for another grower, which does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from compt.errors import ConfigError
from compt.growth.operators import AxisGrower, ParamPair
from compt.growth.run import build_grower
from compt.interfaces import Architecture
from compt.registry import GROWERS

if TYPE_CHECKING:
    from typing_extensions import Self

GrowerConfig = Annotated[Mapping[str, Any], GROWERS]


class Around(AxisGrower):
    """A grower that leaves to another one all that it does not do itself.

    Args:
        grower: name or config of the other.
        label: its own name, for errors.
    """

    def __init__(self, grower: str | GrowerConfig, label: str) -> None:
        self.grower = inner_grower(grower, "grower", label)
        self.function_preserving = self.grower.function_preserving  # type: ignore[misc]

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where the other grower cannot grow the pair."""
        self.grower.check(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where the other grower cannot fill the target's depth."""
        self.grower.check_depth(source, target)

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Any:
        """Make what the other grower shares between parameters."""
        return self.grower.prepare(source, archs, generator)

    def also_reads(self, pair: ParamPair) -> tuple[str, ...]:
        """Name what the other grower reads beside the parameter's source."""
        return self.grower.also_reads(pair)

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block that the other grower chooses."""
        return self.grower.source_block_index(block, source_depth, target_depth)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Finish a value in a new block as the other grower does."""
        return self.grower.init_new_block(value, target, pair)

    def without_noise(self) -> Self:
        """Return this grower with nothing random in what the other inherits."""
        even = copy(self)
        even.grower = self.grower.without_noise()
        return even


def inner_grower(config: str | Mapping[str, Any], key: str, label: str) -> AxisGrower:
    """Build a grower of which another one uses the parts.

    Args:
        config: its name or config.
        key: the option that has it.
        label: name of the grower with that option.

    Raises:
        ConfigError: its parts are not all that it does.
    """
    grower = build_grower(config)
    whole = AxisGrower.grow, AxisGrower.grow_tensors
    if (
        not isinstance(grower, AxisGrower)
        or (type(grower).grow, type(grower).grow_tensors) != whole
    ):
        raise ConfigError(
            f"{key}={config!r} grows whole models, not tensor by tensor.",
            where=f"grower {label}",
            do="Use one that derives from compt.AxisGrower and has no grow of its own, such as "
            "'clone', 'lossless', 'leading_block' or 'stack'.",
        )
    return grower
