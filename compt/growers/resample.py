"""Fit a model to another patch or image size, before another grower does the rest.

Shapes: s places of an axis before, t after, which may be fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.growers._around import Around, GrowerConfig
from compt.growth.operators import ParamPair
from compt.interfaces import Architecture, Unit


def interpolated(small: int, large: int) -> Tensor:
    """Return the map [t, s] of a cubic interpolation of s places at t, as of an image's rows."""
    # Along the width: of an image one place wide torch (2.14) mistakes the rows for the channels.
    rows = torch.eye(small, dtype=torch.float64)[None, :, None]
    resized = F.interpolate(rows, size=(1, large), mode="bicubic", antialias=True)
    return resized[0, :, 0].T.contiguous()


def pseudo_inverse(small: int, large: int) -> Tensor:
    """Return the map [t, s] of a kernel that reads an image resized from s places to t.

    With B [t, s] the linear resizing of the image it is the pseudo-inverse of B transposed: of all
    kernels the one whose products with ``B x`` are nearest to the old one's with x, and equal
    where t >= s.
    Source: Beyer et al., FlexiViT, arXiv 2212.08013, section 3.4.
    """
    rows = torch.eye(small, dtype=torch.float64)[None]
    resized = F.interpolate(rows, size=large, mode="linear")[0].T
    inverse: Tensor = torch.linalg.pinv(resized.T)
    return inverse


SAMPLED: Mapping[Unit, tuple[str, Callable[[int, int], Tensor]]] = {
    "pixels": ("kernels by their pseudo-inverse", pseudo_inverse),
    "places": ("cubic interpolation", interpolated),
}
"""How an axis is resampled, by what it counts."""


class Resample(Around):
    """Fit patch kernels and the positions of an image's patches to other sizes, then grow.

    Layouts say by roles which axes those are: 'pixels' (rows and columns of a patch) and 'places'
    (of a grid of patches, and of the offsets within a window). Each has one map, by which the
    source's tensors are multiplied before the other grower sees them. It is a step of its own that
    keeps no function, and the report names it: the larger model sees other images.

    Args:
        grower: name or config of the grower of widths and depth.
    """

    def __init__(self, *, grower: str | GrowerConfig = "lossless") -> None:
        super().__init__(grower, "resample")

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where the other grower cannot do the rest."""
        self.grower.check(_resampled(source, target), target)

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Any:
        """Make what the other grower shares between parameters."""
        resampled = _resampled(archs["source"], archs["target"])
        return self.grower.prepare(source, {**archs, "source": resampled}, generator)

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return what the other grower makes of the resampled tensor."""
        others = tuple(_places(other, pair) for other in pair.others)
        resampled = replace(pair, source=_resampled(pair.source, pair.target), others=others)
        return self.grower.expand(_places(source, pair), target, resampled)

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Name every axis that is resampled, and then what the other grower cannot keep."""
        reasons = [
            f"'{axis}' is resampled from {source.sizes[axis]} to {size} "
            f"({SAMPLED[source.units[axis]][0]})"
            for axis, size in _changed(source, target).items()
        ]
        resampled = _resampled(source, target)
        if (resampled.sizes, resampled.depths) == (target.sizes, target.depths):
            return reasons
        return reasons + self.grower.why_not_preserving(resampled, target)


def _places(value: Tensor, pair: ParamPair) -> Tensor:
    """Return an unfolded tensor of the source with the target's places."""
    changed = _changed(pair.source, pair.target)
    for dim, axis in enumerate(pair.param.axes):
        if axis in changed:
            _, make_map = SAMPLED[pair.source.units[axis]]
            places = make_map(pair.source.sizes[axis], changed[axis])
            value = torch.tensordot(places, value.movedim(dim, 0), dims=1).movedim(0, dim)
    return value


def _changed(source: Architecture, target: Architecture) -> dict[str, int]:
    """Return the target's sizes of all axes that have to be resampled."""
    return {
        axis: target.sizes[axis]
        for axis, unit in source.units.items()
        if unit in SAMPLED and target.sizes.get(axis) not in (None, source.sizes[axis])
    }


def _resampled(source: Architecture, target: Architecture) -> Architecture:
    """Return what the source is once it has the target's patches and grid."""
    return replace(source, sizes={**source.sizes, **_changed(source, target)})
