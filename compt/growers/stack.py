"""Grow in depth by repeating the smaller model's blocks, in one of several orders."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compt.errors import ConfigError, GrowthError
from compt.growers._new_blocks import adding_nothing
from compt.growth.operators import AxisGrower, ParamPair
from compt.interfaces import Architecture

ORDERS = ("stack", "interleave", "solar")


class Stack(AxisGrower):
    """Fill a deeper model of the same width with the source's blocks.

    Target block i of L_t takes source block: 'stack' i mod L_s; 'interleave' floor(i
    L_s / L_t); 'solar' the first half of the target from the source's beginning, the
    second half up to its end, so that the middle is doubled.
    Source: Gong et al., ICML 2019, and G_stack, arXiv 2405.15319 (stack); SOLAR, arXiv
    2312.15166 (depth up-scaling); LLaMA Pro, arXiv 2401.02415 (zeroed copies).

    Args:
        order: of the blocks.
        blocks: 'copy' for plain copies; 'zero' for copies that write nothing yet, which
            keeps the function.
    """

    function_preserving = True

    def __init__(
        self,
        *,
        order: Literal["stack", "interleave", "solar"] = "stack",
        blocks: Literal["copy", "zero"] = "copy",
    ) -> None:
        if order not in ORDERS:
            raise ConfigError(
                f"order={order!r} is not known.", where="grower stack", do=f"One of {ORDERS}."
            )
        if blocks not in ("zero", "copy"):
            raise ConfigError(
                f"blocks={blocks!r} is not known.", where="grower stack", do="Use 'zero' or 'copy'."
            )
        self.order, self.blocks = order, blocks

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where a width differs, or the order cannot fill the depth."""
        super().check(source, target)
        for axis, size in target.sizes.items():
            if size != source.sizes.get(axis, size):
                raise GrowthError(
                    f"The grower stack grows depth only, and the axis '{axis}' changes from "
                    f"{source.sizes[axis]} to {size}.",
                    do="Use grower=dict(type='compose', width=dict(type='clone'), "
                    "depth=dict(type='stack')).",
                )
        self.check_depth(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where 'solar' would have to fill more than twice the depth."""
        for scope, depth in target.depths.items():
            # A first block of its own is neither repeated nor counted.
            first = int(scope in target.first_blocks)
            doubled = 2 * (source.depths.get(scope, depth) - first)
            if self.order == "solar" and doubled and depth - first > doubled:
                raise GrowthError(
                    f"'{scope}' grows from {source.depths[scope]} to {depth} blocks, and 'solar' "
                    "doubles at most.",
                    do="Use order='stack' or 'interleave', or a member between.",
                )

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the source, which has the target's width."""
        return source

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block that fills a target block, by the order."""
        if self.order == "interleave":
            return super().source_block_index(block, source_depth, target_depth)
        if self.order == "stack":
            return block % source_depth
        in_first_half = block < (target_depth + 1) // 2
        return block if in_first_half else source_depth - (target_depth - block)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Let new blocks write nothing yet, or leave them copies."""
        return adding_nothing(value, target, pair) if self.blocks == "zero" else value

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Return that plain copies of blocks change the function, where there are any."""
        plain = self.blocks == "copy" and source.depths != target.depths
        return ["new blocks are plain copies of others"] if plain else []
