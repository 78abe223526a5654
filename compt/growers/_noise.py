"""Scale the noise by which the readers of copies are told apart."""

from __future__ import annotations

from math import sqrt
from typing import Literal

from compt.growth.operators import ParamPair

NoiseScale = Literal["shares", "mup"]


def noise_factor(scale: NoiseScale, copies: float, pair: ParamPair) -> float:
    """Return what noise is multiplied by, in units of the rms of the weights that are shared out.

    Shared over k copies a weight falls as 1 / k. So does under muP the initialisation of what
    reads a width that grows and writes none, as a head does; that of what writes one too, of a
    hidden tensor, falls as the root.

    Args:
        scale: the grower's option.
        copies: k.
        pair: the parameter.
    """
    writes_width = any(
        direction == "writes" and pair.source.size(axis) != pair.target.size(axis)
        for axis, direction in pair.param.directions
    )
    return sqrt(copies) if scale == "mup" and writes_width else 1.0
