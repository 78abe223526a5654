"""Grow by another grower, then make its weights smaller and add fresh ones."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from compt.growers._around import Around, GrowerConfig
from compt.growth.operators import ParamPair
from compt.interfaces import Architecture
from compt.registry import Range

if TYPE_CHECKING:
    from typing_extensions import Self


class ShrinkPerturb(Around):
    """Mix what another grower makes with the target's own initialisation.

    ``w = keep * w_grown + sqrt(1 - keep^2) * w_fresh``, for every weight and table. A tensor as
    large as its initialisation stays as large. Gains and biases of norms and factors are the other
    grower's, and so are what the target initialises to one value, as biases to 0, and what is
    fresh already.

    A network that goes on from finished weights may learn less of what follows than a fresh one
    does; this gives part of that back, for a part of what is inherited. What it brought is in
    docs/study.md: it makes up for what exact copies cost CLIP in long stages, and costs in short
    ones.

    Source: shrink and perturb, Ash and Adams, arXiv 1910.08475. Differs: what is added has each
    tensor's own scale, that of its initialisation, and the two parts are weighted so that the
    variance stays.

    Args:
        grower: name or config of the other grower.
        keep: share of what is inherited; 1 leaves it as it is, 0 leaves factors alone.
    """

    def __init__(
        self,
        *,
        grower: str | GrowerConfig = "leading_block",
        keep: Annotated[float, Range(minimum=0, maximum=1)] = 0.7,
    ) -> None:
        super().__init__(grower, "shrink_perturb")
        self.keep = keep
        if keep < 1:
            self.function_preserving = False  # type: ignore[misc]

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the other grower's value, smaller, and the fresh one added."""
        grown = self.grower.expand(source, target.clone(), pair)  # which may write into it
        is_factor = "norm" in pair.param.kind or pair.param.kind == "scale"
        if is_factor or target.numel() < 2 or target.min() == target.max():
            return grown
        mixed = self.keep * grown + sqrt(1 - self.keep**2) * target
        return torch.where(grown == target, target, mixed)  # what is fresh already stays as large

    def without_noise(self) -> Self:
        """Return this grower with nothing fresh in what is inherited."""
        even = super().without_noise()
        even.keep = 1.0
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Name the mixture, and what keeps the other grower from preserving the function."""
        reasons = self.grower.why_not_preserving(source, target)
        if self.keep == 1:
            return reasons
        return [f"weights are {self.keep:g} of what is inherited, and fresh", *reasons]
