"""The student's features point where the teacher's do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.interfaces import Outputs
from compt.transfers._features import FeatureTransfer, mean


class Cosine(FeatureTransfer):
    """One minus the cosine of student's and teacher's features, averaged over the features.

    Half of ``feature_mse``, which compares unit-length features; under its usual name and scale.
    """

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return ``{'cosine': scalar}``; 0 where the features point the same way, at most 2."""
        return {"cosine": mean([cosine_distance(*pair) for pair in self.pairs(student, teacher)])}


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of one minus the cosine: [B, ..., D], [B, ..., D] -> scalar."""
    wide = torch.promote_types(student.dtype, torch.float32)
    return 1 - F.cosine_similarity(student.to(wide), teacher.to(wide), dim=-1).mean()
