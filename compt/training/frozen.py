"""Leave some of a student's parameters as they are, for all of a stage or its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class FrozenParams:
    """The parameters that are not trained.

    Those that are frozen for all of the stage ask for no gradient before the model is wrapped and
    its optimizer built, and are in neither. Those that are trained later are in both from the
    start: without a gradient an optimizer passes them over, weight decay included, and remembers
    nothing of them.
    """

    params: Sequence[str] = ()
    """Names in the student."""
    until: int | None = None
    """The first iteration that trains them, None where none does."""

    def begin(self, student: nn.Module) -> None:
        """Freeze what is never trained, before anything else knows the student.

        Raises:
            AttributeError: the student has no such parameter.
        """
        for name in self.params:
            param = student.get_parameter(name)
            if self.until is None:
                param.requires_grad_(False)

    def at(self, iteration: int, student: nn.Module) -> None:
        """Freeze or train the parameters as is due in an iteration."""
        if self.until is None:
            return
        is_trained = iteration >= self.until
        for name in self.params:
            param = student.get_parameter(name)
            if param.requires_grad is not is_trained:
                param.requires_grad_(is_trained)
                param.grad = None
