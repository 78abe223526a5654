"""Grow by tiling, so that every unit is copied and its readers share its weight out.

Shapes: S units of a smaller axis, T of the larger. Unit t of T copies unit t mod S.
"""

from __future__ import annotations

import warnings
from copy import copy
from math import sqrt
from typing import Annotated, Literal

import torch
from torch import Tensor

from compt.errors import ConfigError
from compt.growers._noise import NoiseScale, noise_factor
from compt.growers._ties import tie_reasons
from compt.growers.stack import Stack
from compt.growth.operators import AxisGrower, ParamPair, reads_for_table
from compt.interfaces import Architecture
from compt.registry import Range


class Clone(AxisGrower):
    """Tile every width, so that the larger model's units are copies of the smaller one's.

    What writes a unit is copied; what reads it divides its weight over the copies,
    unevenly, so that they learn different things: noise of the readers that sums to
    zero over the copies of a unit keeps the function and breaks the symmetry. Feature
    widths that leave the model are tiled and divided by the square root of the copies,
    which keeps lengths and dot products. New blocks are copies of their predecessor, or
    ones that write nothing yet.

    Exact at whole multiples of every width; elsewhere units have unequal numbers of
    copies, which norms see: ``Growth.function_preserving`` says so.

    Source: HyperCloning, arXiv 2409.12903 (tiling, antisymmetric noise). Differs: any
    number of copies, and noise by default.

    Args:
        noise: of the split between copies, in units of ``noise_scale``; 0 leaves copies
            equal for ever.
        noise_scale: 'shares', the split weights' rms; 'mup', that of weights at the larger
            width, which falls as the root of what a hidden tensor reads: root of k times the
            shares', where a tensor also writes a width that grows k-fold (arXiv 2602.10545).
        blocks: 'zero' for new blocks that write nothing yet, 'copy' for plain copies,
            which do not keep the function.
    """

    function_preserving = True

    def __init__(
        self,
        *,
        noise: Annotated[float, Range(minimum=0)] = 1.0,
        noise_scale: NoiseScale = "shares",
        blocks: Literal["zero", "copy"] = "zero",
    ) -> None:
        if noise < 0:
            raise ConfigError(f"noise={noise} is negative.", where="grower clone")
        if not noise:
            warnings.warn(
                "clone with noise=0 makes copies that stay equal for ever: the new width is "
                "wasted. Try noise=1.0.",
                UserWarning,
                stacklevel=2,
            )
        self.noise, self.depth = noise, Stack(order="interleave", blocks=blocks)
        self.noise_scale = noise_scale

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Tile along every axis that grows, and share the weight out along those it reads."""
        # A norm whose one reader is tied to a table: the reader is copied as the table
        # is, so the norm divides what each copy of a unit gives it.
        divided_axis = pair.param.norm_axis if reads_for_table(pair.param, pair.target) else None
        value = source
        # What is read comes last: else the copies of what is written would share its noise.
        uses = sorted(enumerate(pair.param.directions), key=lambda use: use[1][1] == "reads")
        for dim, (axis, direction) in uses:
            small, large = pair.source.size(axis), pair.target.size(axis)
            if small == large:
                continue
            unit_T = torch.arange(large) % small
            copies_S = torch.bincount(unit_T, minlength=small).double()
            value = value.index_select(dim, unit_T)
            if pair.target.roles.get(axis) == "output":
                value = value / sqrt(large / small)
            elif direction == "reads":
                noise = self.noise * noise_factor(self.noise_scale, large / small, pair)
                rows = _shared_out(value.movedim(dim, 0), unit_T, copies_S, noise, pair.generator)
                value = rows.movedim(0, dim)
            elif axis == divided_axis:
                offset = pair.param.gain_offset
                rows = (value.movedim(dim, 0) + offset) / _column(copies_S[unit_T], value.ndim)
                value = rows.movedim(0, dim) - offset
        return value

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Let new blocks write nothing yet, or leave them copies."""
        return self.depth.init_new_block(value, target, pair)

    def without_noise(self) -> Clone:
        """Return the same tiling with weights shared out evenly."""
        even = copy(self)  # the constructor would warn of copies that stay equal
        even.noise = 0.0
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Name widths that are no whole multiples, ties that no norm helps, and copied blocks."""
        reasons = [
            f"'{axis}' grows from {source.sizes[axis]} to {size}: tiling is exact at whole "
            "multiples only"
            for axis, size in target.sizes.items()
            if size % source.sizes.get(axis, size)
        ]
        for param in target.params.values():
            if param.tied_to:
                reasons += tie_reasons(param, source, target)
        return [*dict.fromkeys(reasons), *self.depth.why_not_preserving(source, target)]


def _shared_out(
    rows: Tensor, unit_T: Tensor, copies_S: Tensor, noise: float, generator: torch.Generator
) -> Tensor:
    """Divide rows over the copies of their unit, with noise that sums to 0 over them.

    Args:
        rows: [T, ...], those of one unit equal.
        unit_T: the unit, 0 to S - 1, that each row is a copy of.
        copies_S: how many copies each unit has.
        noise: in units of the divided rows' rms.
        generator: of the noise.
    """
    shares = rows / _column(copies_S[unit_T], rows.ndim)
    if not noise:
        return shares
    draw = torch.randn(shares.shape, generator=generator, dtype=shares.dtype)
    sums = torch.zeros(len(copies_S), *shares.shape[1:], dtype=shares.dtype)
    sums.index_add_(0, unit_T, draw)
    draw -= (sums / _column(copies_S, shares.ndim))[unit_T]
    # Less its mean over n copies, a draw has the variance 1 - 1 / n. A single copy
    # has no noise left, and must not be divided by 0.
    num_copies = copies_S[unit_T].clamp_min(2)
    deviation = _column((1 - 1 / num_copies).sqrt(), shares.ndim)
    return shares + draw * noise * shares.square().mean().sqrt() / deviation


def _column(values: Tensor, ndim: int) -> Tensor:
    """Reshape [T] to [T, 1, ...] with ``ndim`` dimensions."""
    return values.view(-1, *[1] * (ndim - 1))
