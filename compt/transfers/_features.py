"""Choose the features that a transfer compares, and project them where widths differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Schedule, Transferer
from compt.registry import Range


class FeatureTransfer(Transferer):
    """Compares features of student and teacher, one pair after the other.

    Args:
        weight, until, schedule: as of :class:`~compt.interfaces.Transferer`.
        features: outputs to compare, ``[batch, ..., width]`` each; the paradigm's own
            ``features`` by default.
        limit: largest share of the task loss that the weighted loss may reach ("L_IFD <
            L_task" in the paper); None: no limit.
    """

    projected = True
    """Whether a linear projection takes the student's features to a teacher's other width."""

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        schedule: Schedule = "constant",
        features: Sequence[str] | None = None,
        limit: Annotated[float, Range(positive=True)] | None = 0.9,
    ) -> None:
        super().__init__(weight=weight, until=until, schedule=schedule)
        self.features = None if features is None else tuple(features)
        self.needs = frozenset(self.features or ())
        self.limit = limit
        self.heads = nn.ModuleDict()

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Choose the features, and make a projection for each whose width differs.

        Raises:
            ConfigError: neither the config nor the paradigm names features.
        """
        self.features = self.features or tuple(student.features)
        if not self.features:
            raise ConfigError(
                f"The transfer {type(self).__name__} has no features to compare.",
                do="Name them: transfer=dict(type=..., features=[...]).",
            )
        self.needs = frozenset(self.features)
        for name in self.features:
            student_width, teacher_width = (
                (arch.outputs or arch.features)[name] for arch in (student, teacher)
            )
            if self.projected and student_width != teacher_width:
                self.heads[name] = nn.Linear(student_width, teacher_width, bias=False)

    def pairs(self, student: Outputs, teacher: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each feature of the student, projected, with the teacher's."""
        for name in self.features or ():
            feature = student[name]
            projected = self.heads[name](feature) if name in self.heads else feature
            yield projected, teacher[name].detach()


def mean(terms: Sequence[Tensor]) -> Tensor:
    """Return the mean of some scalars."""
    return sum(terms[1:], terms[0]) / len(terms)
