"""Draw masks once, for teacher and student alike."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

from compt.interfaces import Draws
from compt.paradigms.mae.mmpretrain import MAEViT


def give_masks(backbone: Any) -> int:
    """Let a backbone that draws its masks take them from ``noise`` [B, N], where it is set.

    Patches of low noise stay.

    Returns:
        N, the number of its patches; 0 where it draws no masks.
    """
    backbone.noise = None
    if not isinstance(backbone, MAEViT):
        return 0
    backbone.random_masking = MethodType(_masked, backbone)
    num_patches: int = backbone.num_patches
    return num_patches


def _masked(self: Any, x: Tensor, mask_ratio: float = 0.75) -> tuple[Tensor, Tensor, Tensor]:
    """Do as mmpretrain's ``MAEViT.random_masking``, but by ``noise``.

    Returns:
        The visible patches [B, K, D], the mask [B, N] in which 1 is removed, and the order [B, N]
        that restores the patches.
    """
    if self.noise is None:
        masked: tuple[Tensor, Tensor, Tensor] = type(self).random_masking(self, x, mask_ratio)
        return masked
    _, patches, width = x.shape
    num_visible = int(patches * (1 - mask_ratio))
    order = self.noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    visible = x.gather(1, order[:, :num_visible, None].expand(-1, -1, width))
    mask = (restore >= num_visible).to(x.device, torch.float32)
    return visible, mask, restore


def draw_noise(images: Tensor, patches: int, draws: Draws) -> Tensor:
    """Draw uniform noise [B, N] on the images' device, from a generator of any device."""
    return draws.rand(len(images), patches).to(images.device)
