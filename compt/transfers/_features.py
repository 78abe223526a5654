"""What transfers that compare features share: which ones, and projections where widths differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Schedule, Transferer


class FeatureTransfer(Transferer):
    """Compares features of student and teacher, one by one.

    Args:
        weight, until, schedule: as of :class:`~compt.interfaces.Transferer`.
        features: outputs to compare, ``[batch, ..., width]`` each; the paradigm's own ``features``
            by default.
        limit: largest share of the task loss that the weighted loss may reach ("L_IFD < L_task");
            None: no limit.
    """

    projected = True
    """Whether a linear projection takes the student's features to the teacher's width, where it
    differs.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        schedule: Schedule = "constant",
        features: Sequence[str] | None = None,
        limit: float | None = 0.9,
    ) -> None:
        super().__init__(weight=weight, until=until, schedule=schedule)
        self.features = None if features is None else tuple(features)
        self.needs = frozenset(self.features or ())
        self.limit = limit
        self.heads = nn.ModuleDict()

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Choose the features, and make a projection for every one whose width differs."""
        self.features = self.features or tuple(student.features)
        if not self.features:
            raise ConfigError(
                f"The transfer {type(self).__name__} has no features to compare.",
                do="Name them: transfer=dict(type=..., features=[...]).",
            )
        self.needs = frozenset(self.features)
        for name in self.features:
            wide, narrow = ((arch.outputs or arch.features)[name] for arch in (student, teacher))
            if self.projected and wide != narrow:
                self.heads[name] = nn.Linear(wide, narrow, bias=False)

    def pairs(self, student: Outputs, teacher: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Each feature of the student, projected, with the teacher's."""
        for name in self.features or ():
            yield (
                self.heads[name](student[name]) if name in self.heads else student[name],
                teacher[name].detach(),
            )


def mean(values: Iterator[Tensor] | Sequence[Tensor]) -> Tensor:
    """The mean of some scalars."""
    listed = list(values)
    return sum(listed[1:], listed[0]) / len(listed)
