"""Inputs and outputs that the probes of image models share, and the pattern of their positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def images(module: nn.Module, size: int | Sequence[int], generator: torch.Generator) -> Tensor:
    """Return two random images [2, 3, H, W] in the device and number format of a module."""
    weight = next(module.parameters())
    shape = (size, size) if isinstance(size, int) else tuple(size)
    return torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64).to(weight)


def similarity(features: Tensor) -> Tensor:
    """Return the cosines of all pairs of tokens [..., D] or of places of a map [B, D, H, W].

    They compare models of different widths.
    """
    tokens = features.movedim(1, -1) if features.ndim == 4 else features
    flat = F.normalize(tokens.flatten(0, -2), dim=-1)
    return flat @ flat.T


def tokens_on_grid(num_tokens: int, grid: Sequence[int]) -> str:
    """Return the axes of the positions of an image's patches, behind those of other tokens.

    Args:
        num_tokens: of class, registers and patches, as many as have a position.
        grid: rows and columns of patches.
    """
    num_others = num_tokens - grid[0] * grid[1]
    return f"({num_others} | height width)" if num_others else "(height width)"
