"""Do without feature transfer and train a stage on its task alone."""

from __future__ import annotations

from torch import Tensor

from compt.interfaces import Outputs, Transferer


class NoTransfer(Transferer):
    """Learn nothing from the teacher, which is then never run."""

    def __init__(self) -> None:
        super().__init__(weight=0.0)

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return no terms."""
        return {}
