"""A diffusion transformer as its own library would have it (arXiv 2212.09748), not as compt would.

Patches of noised images attend to one another; every norm's result is shifted and scaled, and every
branch gated, by a projection of what the time step and the class say.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention with heads of 8 units and MLP, each between modulated norms and gates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shifts = self.modulation(F.silu(cond))[:, None].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = shifts
        x = x + gate1 * self.attend(self.norm1(x) * (1 + scale1) + shift1)
        hidden = self.fc1(self.norm2(x) * (1 + scale2) + shift2)
        return x + gate2 * self.fc2(F.gelu(hidden))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 8)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """Predicts the noise [B, 1, 8, 8] in images, given time steps in [0, 1] [B] and classes [B]."""

    def __init__(self, width: int, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.positions = nn.Parameter(0.02 * torch.randn(16, width))
        self.time1, self.time2 = nn.Linear(16, width), nn.Linear(width, width)
        self.classes = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 4)

    def forward(self, images: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        angles = times[:, None] * 2 ** torch.arange(8, device=times.device)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        cond = self.time2(F.silu(self.time1(waves))) + self.classes(labels)
        x = self.patch(images).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x, cond)
        shift, scale = self.modulation(F.silu(cond))[:, None].chunk(2, dim=-1)
        patches = self.out(self.norm(x) * (1 + scale) + shift)
        return F.fold(patches.transpose(1, 2), (8, 8), kernel_size=2, stride=2)
