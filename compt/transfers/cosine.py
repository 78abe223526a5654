"""Make the student's features point where the teacher's do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.interfaces import Outputs
from compt.transfers._features import FeatureTransfer, mean


class Cosine(FeatureTransfer):
    """One minus the cosine of student's and teacher's features, averaged over the features.

    It is half of ``feature_mse``, which compares unit-length features, under its usual
    name and scale.
    """

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return ``{'cosine': scalar}``, 0 where the features point the same way, at most 2."""
        distances = [cosine_distance(*pair) for pair in self.pairs(student, teacher)]
        return {"cosine": mean(distances)}


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of one minus the cosine, [B, ..., D], [B, ..., D] -> scalar."""
    # In half precision sums of squares overflow, and cosines of like features round to 1.
    dtype = torch.promote_types(student.dtype, torch.float32)
    return 1 - F.cosine_similarity(student.to(dtype), teacher.to(dtype), dim=-1).mean()
