"""Growth by tiling: every unit, head and channel is copied, and its readers share its weight
out.
"""

from __future__ import annotations

import warnings
from copy import copy
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from compt.errors import ConfigError
from compt.growers._ties import tie_reasons
from compt.growers.stack import Stack
from compt.growth.operators import AxisGrower, ParamPair, reads_for_table
from compt.interfaces import Architecture


class Clone(AxisGrower):
    """Tile the width: unit t of the larger model is a copy of unit t mod S of the smaller.

    What writes a unit is copied; what reads it divides its weight over the copies, unevenly, so
    that they learn different things: noise of the readers that sums to zero over the copies of a
    unit keeps the function and breaks the symmetry. Feature widths that leave the model are tiled
    and divided by the square root of the copies, which keeps lengths and dot products. New blocks
    are copies of their predecessor, or ones that write nothing yet.

    Exact at whole multiples of every width; elsewhere units have unequal numbers of copies, which
    norms see: ``Growth.function_preserving`` says so.

    Source: HyperCloning, arXiv 2409.12903 (tiling, antisymmetric noise). Differs: any number of
    copies, and noise by default.

    Args:
        noise: of the split between copies, in units of the split weights' rms; 0 leaves copies
            equal for ever.
        blocks: 'zero' for new blocks that write nothing yet, 'copy' for plain copies, which do not
            keep the function.
    """

    function_preserving = True

    def __init__(self, *, noise: float = 1.0, blocks: Literal["zero", "copy"] = "zero") -> None:
        if noise < 0:
            raise ConfigError(f"noise={noise} is negative.", where="grower clone")
        if not noise:
            text = "clone with noise=0 makes copies that stay equal for ever: the new width is wasted. Try noise=1.0."
            warnings.warn(text, UserWarning, stacklevel=2)
        self.noise, self.depth = noise, Stack(order="interleave", blocks=blocks)

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Tile along every axis that grows; along those it reads, share the weight out."""
        value = source
        for dim, (axis, direction) in enumerate(pair.param.directions):
            small, large = pair.source.size(axis), pair.target.size(axis)
            if small == large:
                continue
            index = torch.arange(large) % small
            copies = torch.bincount(index, minlength=small).double()
            value = value.index_select(dim, index)
            if pair.target.roles.get(axis) == "output":
                value = value / sqrt(large / small)
            elif direction == "reads":
                value = self._shared_out(
                    value.movedim(dim, 0), index, copies, pair.generator
                ).movedim(0, dim)
            elif reads_for_table(pair.param, pair.target) and axis == pair.param.norm_axis:
                value = (value.movedim(dim, 0) / _column(copies[index], value.ndim)).movedim(0, dim)
        return value

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Let new blocks write nothing yet, or leave them copies."""
        return self.depth.init_new_block(value, target, pair)

    def without_noise(self) -> Clone:
        """The same tiling, with weights shared out evenly."""
        even = copy(self)
        even.noise = 0.0
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Name every width that is no whole multiple, ties without a norm to help, and plain copies
        of blocks.
        """
        found = {
            f"'{axis}' grows from {source.sizes[axis]} to {size}: tiling is exact at whole multiples only": None
            for axis, size in target.sizes.items()
            if size % source.sizes.get(axis, size)
        }
        for param in target.params.values():
            if param.tied_to:
                found |= dict.fromkeys(tie_reasons(param, source, target))
        return [*found, *self.depth.why_not_preserving(source, target)]

    def _shared_out(
        self, value: Tensor, index: Tensor, copies: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Divide rows [T, ...] over the copies of their unit, and add noise that sums to zero over
        them.
        """
        share = value / _column(copies[index], value.ndim)
        if not self.noise:
            return share
        draw = torch.randn(share.shape, generator=generator, dtype=share.dtype)
        total = torch.zeros(len(copies), *share.shape[1:], dtype=share.dtype).index_add_(
            0, index, draw
        )
        draw -= (total / _column(copies, share.ndim))[index]
        several = copies[index].clamp_min(2)  # of one alone the noise is 0
        return share + draw * self.noise * share.square().mean().sqrt() / _column(
            (1 - 1 / several).sqrt(), share.ndim
        )


def _column(values: Tensor, ndim: int) -> Tensor:
    """[T] -> [T, 1, ...] with ``ndim`` dimensions."""
    return values.view(-1, *[1] * (ndim - 1))
