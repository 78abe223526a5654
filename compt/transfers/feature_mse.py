"""The paper's inverse feature distillation: the student's features match the smaller teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Transferer


class FeatureMse(Transferer):
    """Squared distance between unit-length features of student and teacher, averaged over the features.

    Where the widths differ, a linear projection takes the student's features into the teacher's space; it is
    trained and checkpointed with the stage, and never exported.
    Source: Chain-of-Models Pre-Training, arXiv 2604.12391, L_IFD. Differs: the distance is summed over the
    width, not averaged, so that a weight means the same at every width (the paper's alpha = 500 over a mean
    of 512 is a weight of 0.98 here).

    Args:
        weight: factor of the loss.
        until: fraction of the stage after which the teacher is no longer run.
        features: outputs to compare, ``[batch, ..., width]`` each; the paradigm's own ``features`` by default.
        limit: largest share of the task loss that the weighted loss may reach ("L_IFD < L_task").
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        features: Sequence[str] | None = None,
        limit: float | None = 0.9,
    ) -> None:
        super().__init__(weight=weight, until=until)
        self.features = None if features is None else tuple(features)
        self.needs = frozenset(self.features or ())
        self.limit = limit
        self.heads = nn.ModuleDict()

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Make a projection for every feature whose width differs."""
        self.features = self.features or tuple(student.features)
        if not self.features:
            raise ConfigError(
                "feature_mse has no features to compare.",
                do="Name them: transfer=dict(type='feature_mse', features=[...]).",
            )
        self.needs = frozenset(self.features)
        for name in self.features:
            wide, narrow = ((arch.outputs or arch.features)[name] for arch in (student, teacher))
            if wide != narrow:
                self.heads[name] = nn.Linear(wide, narrow, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return ``{'feature_mse': scalar}``; 0 where the features point the same way, at most 4."""
        distances = []
        for name in self.features or ():
            projected = self.heads[name](student[name]) if name in self.heads else student[name]
            distances.append(feature_distance(projected, teacher[name]))
        return {"feature_mse": sum(distances[1:], distances[0]) / len(distances)}


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of unit-length features: [B, ..., D], [B, ..., D] -> scalar."""
    wide = torch.promote_types(student.dtype, torch.float32)
    gap = F.normalize(student.to(wide), dim=-1) - F.normalize(teacher.to(wide), dim=-1)
    return gap.square().sum(-1).mean()
