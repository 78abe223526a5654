"""Grow by the paper's operator, which puts the small tensor into the large one's corner."""

from __future__ import annotations

from math import prod
from typing import Literal

from torch import Tensor

from compt.errors import ConfigError, GrowthError
from compt.growth.operators import AxisGrower, ParamPair
from compt.interfaces import Architecture, ParamAxes


class LeadingBlock(AxisGrower):
    """Put each source tensor into the leading corner of the target's, and repeat each block.

    Width: the rest of the target keeps its random initialisation. Depth: source block l
    fills the target blocks i with floor(i L_s / L_t) = l; at twice the depth these are
    2l and 2l + 1.
    Source: Chain-of-Models Pre-Training, arXiv 2604.12391, inverse weight
    initialisation.

    Args:
        fused: what a fused tensor's corner is. 'split' gives q, k and v (any folded
            axes) a corner each; 'whole' copies the folded tensor as one, as the
            authors' reference code does: the new q then holds the old q and part of the
            old k.
    """

    def __init__(self, *, fused: Literal["split", "whole"] = "split") -> None:
        if fused not in ("split", "whole"):
            raise ConfigError(
                f"fused={fused!r} is not known.",
                where="grower leading_block",
                do="Use 'split' or 'whole'.",
            )
        self.fused = fused

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where the pair cannot grow, or 'whole' meets a concatenation."""
        super().check(source, target)
        for param in target.params.values():
            axes = {axis for part in param.sections for axis in part.groups[param.joined]}
            if self.fused == "whole" and any(
                source.size(axis) != target.size(axis) for axis in axes
            ):
                raise GrowthError(
                    f"'{param.name}' concatenates {param.groups[param.joined][0]}, of which "
                    "fused='whole' cannot say where the corner is.",
                    do="Use fused='split'.",
                )

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Overwrite the leading corner of the target with the source."""
        if self.fused == "split":
            target[pair.corner] = source
            return target
        small = _folded_shape(pair.param, pair.source)
        folded = target.reshape(_folded_shape(pair.param, pair.target))
        folded[tuple(slice(0, length) for length in small)] = source.reshape(small)
        return folded.reshape(target.shape)


def _folded_shape(param: ParamAxes, arch: Architecture) -> list[int]:
    """Return the shape that a parameter has in memory, one dimension a group of axes."""
    return [prod(arch.size(axis) for axis in group) for group in param.groups]
