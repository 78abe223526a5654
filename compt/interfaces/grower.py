"""The interface of growers, which make the weights of a larger model from a smaller one's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from compt.interfaces.architecture import Architecture
from compt.interfaces.plugin import Plugin

Status = Literal["copied", "expanded", "initialised", "shared"]
Objective = Callable[[Mapping[str, Tensor]], Tensor]
"""The loss, [], on the next batch with these parameters of the target, by name.

Parameters that are not given keep their values. It may have a method ``restart()``, after which
the batches come again from the first.
"""


@dataclass(frozen=True)
class Growth:
    """What a grower made of one source and one target.

    It names every parameter and buffer of the target once.

    ``params`` tells how each came about: ``copied`` (equal to a source tensor), ``expanded`` (holds
    source values and more), ``initialised`` (nothing from the source), ``shared`` (another name of
    a tensor already listed). ``tensors`` are the new values, by name; those not listed keep what
    the target had. ``dropped`` names the source tensors that were not used. ``function_preserving``
    is the grower's claim for this pair, with ``reason`` where it is False. What ``compt.grow``
    returns is corrected by measurement: ``error`` is the largest relative difference of the
    outputs, in full precision. Where it is None nothing could be measured, and ``reason`` says so.
    ``details`` is what else the grower has to report, as JSON types.
    """

    params: Mapping[str, Status]
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    dropped: tuple[str, ...] = ()
    function_preserving: bool = False
    reason: str = ""
    error: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of tensors by status."""
        statuses = list(self.params.values())
        return {status: statuses.count(status) for status in get_args(Status)}

    def to_dict(self) -> dict[str, Any]:
        """Return the report without the tensors, as JSON types."""
        return {
            "counts": self.counts,
            "params": dict(self.params),
            "dropped": list(self.dropped),
            "function_preserving": self.function_preserving,
            "reason": self.reason,
            "error": self.error,
            **({"details": dict(self.details)} if self.details else {}),
        }


class Grower(Plugin, ABC):
    """Make the weights of a larger model from those of a smaller one, once a stage."""

    function_preserving: ClassVar[bool] = False
    """Whether it aims to keep the function, while ``Growth`` says what is true for a pair."""
    objective_calls: int = 0
    """How often ``grow`` calls its objective at most, for growers that learn.

    Calls are planned and charged as training steps. Every process then takes part, each on its own
    batches; all get the mean of losses and gradients.
    """

    @abstractmethod
    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError, with tensor, axis and sizes, unless source can grow to target."""

    @abstractmethod
    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        source_arch: Architecture,
        target_arch: Architecture,
        generator: torch.Generator,
        objective: Objective | None = None,
    ) -> Growth:
        """Return the grown weights.

        Both modules and the global random state stay as they are.
        ``objective(params)`` is the loss of the target with these parameters on the stage's next
        batch, with gradients for them, for growers that learn or probe; None outside a chain.
        ``generator`` is the CPU's; the modules are on the device that the stage is trained on where
        ``objective_calls`` is not 0.
        """
