"""Make the samples of a batch as alike to the student as they are to the teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.errors import TrainingError
from compt.interfaces import Outputs
from compt.transfers._features import FeatureTransfer, mean


class Relation(FeatureTransfer):
    """Mean squared difference of the cosines of all pairs of samples, averaged over the features.

    Compares [B, B] matrices, so that widths may differ without a projection to be
    learned. Features with more dimensions are averaged over those between batch and
    width.
    Source: Tung and Mori 2019, arXiv 1907.09682, and Park et al. 2019, arXiv
    1904.05068. Differs: cosines, and a mean over the pairs of different samples, so
    that a weight means the same for every batch size.
    """

    projected = False
    averages_tokens = True

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return ``{'relation': scalar}``, 0 where all pairs are equally alike, at most 4.

        Raises:
            TrainingError: a batch of one sample has no pairs.
        """
        distances = [relation_distance(*pair) for pair in self.pairs(student, teacher)]
        return {"relation": mean(distances)}


def relation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the cosines of all pairs of samples.

    [B, ..., S], [B, ..., T] -> scalar, for B samples and widths S and T.

    Raises:
        TrainingError: fewer than two samples.
    """
    num_samples = len(student)
    if num_samples < 2:
        raise TrainingError(
            "relation compares pairs of samples, and the batch has one.", do="Use batches of two."
        )
    gap = _similarities(student) - _similarities(teacher)
    num_pairs = num_samples * (num_samples - 1)  # without the diagonal, which is 0
    return gap.square().sum() / num_pairs


def _similarities(features: Tensor) -> Tensor:
    """Return the cosines of all pairs of samples, [B, ..., D] -> [B, B]."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    if features.ndim > 2:
        features = features.flatten(1, -2).mean(1)
    units = F.normalize(features, dim=-1)
    # Exactly 1, whatever rounding makes of it: a sample is no pair with itself.
    return (units @ units.T).fill_diagonal_(1.0)
