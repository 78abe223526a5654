"""The maps before they are trained, tilings for widths and one-hot rows for depths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def tiling(small: int, large: int) -> Tensor:
    """Return one-hot rows [T, S] that repeat the units in order.

    Row t is unit t % S.
    """
    return torch.eye(small, dtype=torch.float64)[torch.arange(large) % small]


def shares(small: int, large: int, spread: float, generator: torch.Generator) -> Tensor:
    """Return what each of the T units holds of its source unit, [T].

    Over the copies of a unit the shares sum to 1. They are a softmax over the copies of normal
    draws times ``spread``: 0 splits evenly, and equal copies never part.
    """
    tiles = tiling(small, large)
    weights = torch.exp(spread * torch.randn(large, generator=generator, dtype=torch.float64))
    return weights / (tiles @ (tiles.T @ weights))


def width_maps(
    small: int, large: int, *, isometry: bool, spread: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the maps of one axis for what writes it and for what reads it, [T, S] each.

    Writers are copied and readers take the shares, so that reads^T writes = 1. ``isometry`` is for
    features that leave the model: writers take the roots of the shares, which keeps lengths and dot
    products at any width.
    """
    tiles, split = tiling(small, large), shares(small, large, spread, generator)[:, None]
    if isometry:
        return tiles * split.sqrt(), tiles * split.sqrt()
    return tiles, tiles * split


def depth_mix(picks: Sequence[int | None], num_sources: int) -> Tensor:
    """Return one row for each target block, [L_t, L_s].

    A row is one-hot at the source block that the target block starts from, and 0 for None.
    """
    mix = torch.zeros(len(picks), num_sources, dtype=torch.float64)
    for row, pick in enumerate(picks):
        if pick is not None:
            mix[row, pick] = 1
    return mix
