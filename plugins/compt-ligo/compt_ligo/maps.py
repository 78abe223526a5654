"""The maps before they are trained: tilings for widths, one-hot rows for depths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def tiling(small: int, large: int) -> Tensor:
    """One-hot rows that repeat the units in order: [T, S], row t is unit t % S."""
    return torch.eye(small, dtype=torch.float64)[torch.arange(large) % small]


def shares(small: int, large: int, spread: float, generator: torch.Generator) -> Tensor:
    """What each of the T units holds of its source unit: [T]; over the copies of a unit they sum to
    1.

    A softmax over the copies of normal draws times ``spread``: 0 splits evenly, and equal copies
    never part.
    """
    tiles = tiling(small, large)
    weights = torch.exp(spread * torch.randn(large, generator=generator, dtype=torch.float64))
    return weights / (tiles @ (tiles.T @ weights))


def width_maps(
    small: int, large: int, *, isometry: bool, spread: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The maps of one axis for what writes it and for what reads it: [T, S] each, with reads^T
    writes = 1.

    Writers are copied and readers take the shares. ``isometry`` is for features that leave the
    model: writers take the roots of the shares, which keeps lengths and dot products at any width.
    """
    tiles, part = tiling(small, large), shares(small, large, spread, generator)[:, None]
    return (tiles * part.sqrt(), tiles * part.sqrt()) if isometry else (tiles, tiles * part)


def depth_mix(picks: Sequence[int | None], num_sources: int) -> Tensor:
    """One row for each target block: one-hot at the source block it starts from, or 0 for None:
    [L_t, L_s].
    """
    mix = torch.zeros(len(picks), num_sources, dtype=torch.float64)
    for row, pick in enumerate(picks):
        if pick is not None:
            mix[row, pick] = 1
    return mix
