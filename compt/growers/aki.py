"""Grow by tiling, with the next block's units in the place of second copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Annotated, Literal

import torch
from torch import Tensor

from compt.growers.clone import Clone
from compt.growers.stack import Stack
from compt.growth.operators import AxisGrower, ParamPair
from compt.interfaces import Architecture, ParamAxes
from compt.registry import Range


class Aki(AxisGrower):
    """Widen each block by units of the block above it, as those know more.

    The first S of the T units that a tensor writes are its source's own; the others are
    what the same units of the next block's tensor write. Readers divide each weight over
    the units that are grown from one, as :class:`~compt.growers.clone.Clone` does. The last
    block, which has none above it, and what is in no block are tiled. The function is not
    kept where there is a next block; new units are not copies then, so that nothing has to
    tell them apart.

    Source: Chen et al., bert2BERT, arXiv 2110.07143, section 3.3 (advanced knowledge
    initialisation). Differs: units of tensors without a next block are tiled in order, not
    drawn, and their readers split unevenly.

    Args:
        noise: of the split between copies that nothing else tells apart, as the units of the
            last block, in units of the split weights' rms; 0 leaves them equal for ever.
        blocks: 'copy' stacks the source's blocks to add depth, as in the source; 'zero'
            lets the repeats write nothing yet.
    """

    def __init__(
        self,
        *,
        noise: Annotated[float, Range(minimum=0)] = 1.0,
        blocks: Literal["copy", "zero"] = "copy",
    ) -> None:
        self.uneven = Clone(noise=noise, blocks=blocks)
        self.even, self.depth = self.uneven.without_noise(), Stack(order="stack", blocks=blocks)

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> frozenset[str]:
        """Return the streams that blocks with one above them write, whose copies thus differ."""
        small = archs["source"]
        below = (param for param in small.params.values() if _above(param, small))
        axes = {axis for param in below for axis in param.axes}
        return frozenset(axis for axis in axes if small.roles.get(axis) == "stream")

    def also_reads(self, pair: ParamPair) -> tuple[str, ...]:
        """Return the same tensor of the next block, where there is one and a width grows."""
        above = _above(pair.source_param, pair.source)
        return (above.name,) if above and _widened(pair) else ()

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Tile the tensor, and put what the next block's has in the place of new units."""
        tiling = self.uneven if self._has_plain_copies(pair) else self.even
        value = tiling.expand(source, target, pair)
        for other in pair.others:
            above = tiling.expand(other, target, pair)
            for dim in _widened(pair):
                small = source.shape[dim]
                rest = value.shape[dim] - small
                value.narrow(dim, small, rest).copy_(above.narrow(dim, small, rest))
        return value

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block of a stack of all."""
        return self.depth.source_block_index(block, source_depth, target_depth)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Leave new blocks copies, or let them write nothing yet."""
        return self.depth.init_new_block(value, target, pair)

    def without_noise(self) -> Aki:
        """Return the same growth with weights shared out evenly."""
        even = copy(self)
        even.uneven = self.even
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Say that new units are the next block's, and why tilings beside them are not exact."""
        widened = [axis for axis, size in target.sizes.items() if size != source.sizes.get(axis)]
        taken = any(
            _above(param, source) and set(param.axes) & set(widened)
            for param in source.params.values()
        )
        reasons = ["new units are those of the next block"] if taken else []
        as_stacked = self.depth.why_not_preserving(source, target)
        tiled = [r for r in self.uneven.why_not_preserving(source, target) if r not in as_stacked]
        return [*reasons, *tiled, *as_stacked]

    def _has_plain_copies(self, pair: ParamPair) -> bool:
        """Return whether the units that a tensor reads are copies of each other, all of them."""
        if _above(pair.source.params[pair.source_param.name], pair.source):
            return False
        reads = {axis for axis, direction in pair.param.directions if direction == "reads"}
        return not (pair.maps or frozenset()) & reads


def _above(param: ParamAxes, source: Architecture) -> ParamAxes | None:
    """Return the same parameter of the next block of its kind, None where there is none."""
    if param.block is None or "{block}" not in param.template:
        return None
    block = param.block + source.periods.get(str(param.scope), 1)
    above = source.params.get(param.template.format(block=block))
    return above if above is not None and above.groups == param.groups else None


def _widened(pair: ParamPair) -> Sequence[int]:
    """Return the dimensions of the unfolded tensor that grow and that it does not read.

    Features that leave the model are tiled alone: no other block has them.
    """
    return [
        dim
        for dim, (axis, direction) in enumerate(pair.param.directions)
        if direction != "reads"
        and pair.source.size(axis) != pair.target.size(axis)
        and pair.target.roles.get(axis) != "output"
    ]
