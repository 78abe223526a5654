"""Grow in depth by repeating the smaller model's blocks, in one of several orders."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from compt.errors import ConfigError, GrowthError
from compt.growers._depth_only import check_same_widths
from compt.growers._new_blocks import adding_nothing
from compt.growth.operators import AxisGrower, ParamPair
from compt.interfaces import Architecture
from compt.registry import Range

ORDERS = ("stack", "interleave", "solar", "middle", "expand")


class Stack(AxisGrower):
    """Fill a deeper model of the same width with the source's blocks.

    Target block i of L_t takes source block: 'stack' i mod L_s; 'interleave' floor(i
    L_s / L_t); 'solar' the first half of the target from the source's beginning, the
    second half up to its end, so that the middle is doubled; 'middle' the middle blocks
    again and again between the first and the last; 'expand' the source's blocks in
    L_t - L_s groups, each with a copy of its last block behind it.

    Source: Gong et al., ICML 2019, and G_stack, arXiv 2405.15319 (stack); SOLAR, arXiv
    2312.15166 (depth up-scaling); MIDAS and LIDAS, arXiv 2409.19044 and 2512.08819 (middle);
    LLaMA Pro, arXiv 2401.02415 (expand, with ``blocks='zero'`` and ``freeze='old'``).
    Differs: where MIDAS inserts one block of layers a hop, 'middle' inserts all that the
    target has more; up to twice the depth that is LIDAS, the exact middle doubled.

    Args:
        order: of the blocks.
        blocks: 'copy' for plain copies; 'zero' for copies that write nothing yet, which
            keeps the function.
        middle: how many blocks 'middle' repeats; by default as many as are new, and all but
            the first and the last at most.
    """

    function_preserving = True

    def __init__(
        self,
        *,
        order: Literal["stack", "interleave", "solar", "middle", "expand"] = "stack",
        blocks: Literal["copy", "zero"] = "copy",
        middle: Annotated[int, Range(minimum=1)] | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ConfigError(
                f"order={order!r} is not known.", where="grower stack", do=f"One of {ORDERS}."
            )
        if blocks not in ("zero", "copy"):
            raise ConfigError(
                f"blocks={blocks!r} is not known.", where="grower stack", do="Use 'zero' or 'copy'."
            )
        if middle is not None and (order != "middle" or middle < 1):
            raise ConfigError(
                f"middle={middle} is of no use.",
                where="grower stack",
                do="It is a number of blocks, 1 or more, for order='middle'.",
            )
        self.order, self.blocks, self.middle = order, blocks, middle

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where a width differs, or the order cannot fill the depth."""
        super().check(source, target)
        check_same_widths("stack", source, target)
        self.check_depth(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where 'solar' would have to fill more than twice the depth."""
        for scope, depth in target.depths.items():
            # A first block of its own is neither repeated nor counted.
            first = int(scope in target.first_blocks)
            doubled = 2 * (source.depths.get(scope, depth) - first)
            if self.middle is not None and doubled and 2 * self.middle > doubled:
                raise GrowthError(
                    f"'{scope}' has {source.depths[scope]} blocks, of which {self.middle} cannot "
                    "be in the middle.",
                    do=f"Give the grower stack a middle of {doubled // 2} at most.",
                )
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
        if self.order == "expand":  # 'interleave' seen from the end
            from_end = super().source_block_index(
                target_depth - 1 - block, source_depth, target_depth
            )
            return source_depth - 1 - from_end
        if self.order == "middle":
            return self._around_the_middle(block, source_depth, target_depth)
        in_first_half = block < (target_depth + 1) // 2
        return block if in_first_half else source_depth - (target_depth - block)

    def _around_the_middle(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block, where those between the first and the last are repeated."""
        num_new = target_depth - source_depth
        repeated = self.middle or max(1, min(num_new, source_depth - 2))
        begin = (source_depth - repeated) // 2
        if block < begin:
            return block
        if block >= begin + repeated + num_new:
            return block - num_new
        return begin + (block - begin) % repeated

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Let new blocks write nothing yet, or leave them copies."""
        return adding_nothing(value, target, pair) if self.blocks == "zero" else value

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Return that plain copies of blocks change the function, where there are any."""
        plain = self.blocks == "copy" and source.depths != target.depths
        return ["new blocks are plain copies of others"] if plain else []
