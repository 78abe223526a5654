"""The interface of transferers, which let a student learn from its teacher's features."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces.architecture import Architecture
from compt.interfaces.buffers import BufferRule
from compt.interfaces.paradigm import NOTHING, Batch, Outputs
from compt.interfaces.plugin import Plugin, may_omit

Schedule = Literal["constant", "linear", "cosine"]
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
"""How a transferer's weight falls, as factors by the fraction of its time."""


class Transferer(Plugin, nn.Module, ABC):
    """Let the student learn from its teacher's features, at every step.

    What it learns or remembers from step to step, such as a queue of features, is in parameters and
    buffers, which checkpoints hold; their shapes are set in ``bind``.

    Args:
        weight: factor of the loss terms.
        until: fraction of the stage after which the weight is 0 and the teacher is no longer run.
        schedule: 'constant' until then, or falling to zero there: 'linear' or 'cosine'.
    """

    needs: frozenset[str] = frozenset()
    """Outputs of the paradigm that it reads, complete once ``bind`` has run.

    The teacher need give no others.
    """
    limit: float | None = None
    """Largest share of the task loss that the weighted terms may reach, scaled down if need be."""
    buffer_rules: Mapping[str, BufferRule] = {}
    """How its buffers are brought together over several processes; see :class:`Paradigm`."""
    sample_index: bool = False
    """Whether batches hold the samples' numbers in their split, as ``batch["index"]`` [B]."""

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ConfigError(
                f"schedule={schedule!r} is not known.", do=f"One of {tuple(SCHEDULES)}."
            )
        if not (0 <= weight < math.inf and 0 <= until <= 1):
            raise ConfigError(
                f"weight={weight}, until={until}: a weight is not negative, and until is between 0 "
                "and 1."
            )
        self.weight, self.until, self.schedule = weight, until, schedule

    def strength(self, progress: float) -> float:
        """Return the weight at ``progress`` (0 to 1) through the stage.

        While it is 0 the teacher is not run.
        """
        if progress >= self.until:
            return 0.0
        return self.weight * SCHEDULES[self.schedule](progress / self.until)

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Make what depends on the two models, such as projection heads."""

    @may_omit("batch")
    @abstractmethod
    def forward(
        self, student: Outputs, teacher: Outputs, *, progress: float, batch: Batch = NOTHING
    ) -> dict[str, Tensor]:
        """Return the loss terms, unweighted scalars by name.

        Args:
            student: outputs of the paradigm's ``forward``.
            teacher: at least the outputs in ``needs``, without gradients.
            progress: how much of the stage is done, from 0 on and below 1.
            batch: what both were computed from, labels included where the paradigm has them.
        """
