"""Toy models whose residual branches end in all the ways that new blocks have to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.registry import LAYOUTS
from compt.testing._shared import randomised
from compt.testing.toy import INPUTS, ToyLayout, ToyNet

End = Literal["norm", "layer scale", "gate", "norm after the sum"]

ENDS: tuple[End, ...] = ("norm", "layer scale", "gate", "norm after the sum")
"""What comes after the last weight of a block."""


class BranchBlock(nn.Module):
    """A residual MLP block that ends in a norm, a factor or a gate."""

    def __init__(self, width: int, end: End) -> None:
        super().__init__()
        self.end = end
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        if end == "layer scale":
            self.factor = nn.Parameter(torch.full((width,), 0.1))
        elif end == "gate":
            self.last: nn.Module = nn.Linear(INPUTS, width)
        else:
            self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor, points: Tensor) -> Tensor:
        """Return the block's output, [B, D], [B, 8] -> [B, D]."""
        added: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        if self.end == "layer scale":
            return x + self.factor * added
        if self.end == "norm after the sum":
            return cast(Tensor, self.last(x + added))
        ended: Tensor = self.last(points) * added if self.end == "gate" else self.last(added)
        return x + ended


class BranchNet(ToyNet):
    """A ToyNet whose blocks are BranchBlocks."""

    def __init__(self, width: int, depth: int, *, end: End) -> None:
        super().__init__(width, 0, dropout=0.0)
        self.end = end
        self.blocks = nn.ModuleList(BranchBlock(width, end) for _ in range(depth))

    def features(self, x: Tensor) -> Tensor:
        """Return the normed features, [B, 8] -> [B, D]."""
        stream = self.embed(x)
        for block in self.blocks:
            stream = block(stream, x)
        features: Tensor = self.norm(stream)
        return features


@LAYOUTS.register_module(name=f"{__name__}.BranchNet")
class BranchLayout(ToyLayout):
    """The named axes of BranchNet."""

    def patterns_of(self, module: Any) -> Mapping[str, str]:
        """Return the patterns of a net whose blocks end in the module's way."""
        block = "blocks.{block}"
        if module.end == "layer scale":
            factor, last = f"{block}.factor", {f"{block}.factor": "scale: embed"}
        elif module.end == "gate":
            factor = f"{block}.last.weight"
            last = {factor: f"scale: embed <- {INPUTS}", f"{block}.last.bias": "scale: embed"}
        else:
            factor = f"{block}.last.weight"
            last = {
                factor: "layer_norm_gain: embed -> embed",
                f"{block}.last.bias": "layer_norm_bias: embed -> embed",
            }
        if module.end == "norm after the sum":
            return {**self.patterns, **last}
        written = {
            f"{block}.fc2.weight": f"embed <- mlp * {factor}",
            f"{block}.fc2.bias": f"embed * {factor}",
        }
        return {**self.patterns, **last, **written}


def branch_pair(end: End) -> tuple[BranchNet, BranchNet]:
    """Return a source and a deeper target whose blocks end in one way, in float64."""
    source, target = BranchNet(16, 1, end=end).double(), BranchNet(16, 3, end=end).double()
    randomised(source)
    return source, target
