"""Match the student's features to the smaller teacher's, as the paper does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.interfaces import Outputs
from compt.transfers._features import FeatureTransfer, mean


class FeatureMse(FeatureTransfer):
    """Squared distance between unit-length features, averaged over the features.

    Where the widths differ, a linear projection takes the student's features into the
    teacher's space; it is trained and checkpointed with the stage, and never exported.
    Source: Chain-of-Models Pre-Training, arXiv 2604.12391, L_IFD. Differs: the distance
    is summed over the width, not averaged, so that a weight means the same at every
    width (the paper's alpha = 500 over a mean of 512 is a weight of 0.98 here).
    """

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return ``{'feature_mse': scalar}``, 0 where features point the same way, at most 4."""
        distances = [feature_distance(*pair) for pair in self.pairs(student, teacher)]
        return {"feature_mse": mean(distances)}


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared distance of unit-length features.

    [B, ..., D], [B, ..., D] -> scalar, summed over D and averaged over all else.
    """
    # Half-precision sums of squares overflow, and small distances round to 0.
    dtype = torch.promote_types(student.dtype, torch.float32)
    gap = F.normalize(student.to(dtype), dim=-1) - F.normalize(teacher.to(dtype), dim=-1)
    return gap.square().sum(-1).mean()
