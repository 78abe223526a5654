"""A ViT of timm with DINO's head, its teacher beside it, and the axes of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import compt
from compt.paradigms.averages import average_of


class Branch(nn.Module):
    """A ViT, and a head from its features [B, D] to scores [B, K] of prototypes."""

    def __init__(
        self, vit: Mapping[str, Any], hidden: int, bottleneck: int, prototypes: int
    ) -> None:
        super().__init__()
        # Local crops are smaller than what positions are learned for.
        self.backbone = VisionTransformer(
            **{"num_classes": 0, "class_token": True, **vit}, dynamic_img_size=True
        )
        self.head = nn.Sequential(
            nn.Linear(self.backbone.embed_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, features: Tensor) -> Tensor:
        """Return the cosine of each sample's features and each prototype."""
        return F.linear(
            F.normalize(self.head(features), dim=-1), F.normalize(self.prototypes, dim=-1)
        )


class Dino(nn.Module):
    """A student that is trained, a teacher that is its average, and the teacher's mean score."""

    centre: Tensor

    def __init__(self, vit: Mapping[str, Any], *sizes: int) -> None:
        super().__init__()
        self.student = Branch(vit, *sizes)
        self.teacher = average_of(self.student)
        self.register_buffer("centre", torch.zeros(len(self.student.prototypes)))


class BranchLayout(compt.Layout):
    """The axes of a branch: the ViT's own, and a head of fixed sizes that reads them."""

    api_version = "1.2"
    parts = ("backbone",)
    patterns = {
        "head.0.*": "hidden <- backbone.embed",
        "head.2.*": "hidden <- hidden",
        "head.4.*": "bottleneck <- hidden",
        "prototypes": "prototypes <- bottleneck",
    }
    roles = {"hidden": "fixed", "bottleneck": "fixed", "prototypes": "fixed"}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the scores of two random images."""
        size = module.backbone.patch_embed.img_size
        images = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
        return {"scores": module(module.backbone(images.to(module.prototypes)))}


class DinoLayout(compt.Layout):
    """Student and teacher grow alike; the mean score is no axis that may."""

    api_version = "1.2"
    parts = ("student", "teacher")
    patterns = {"centre": "constant:"}

    def probe(self, module: Any, generator: torch.Generator) -> compt.Outputs:
        """Return the student's scores of two random images, as the teacher begins anew."""
        return BranchLayout().probe(module.student, generator)
