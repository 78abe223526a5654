"""Run several transfers at once, each with its own weight and schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Annotated, Any

from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import (
    Architecture,
    Batch,
    BufferRule,
    Outputs,
    Transferer,
    accepted,
)
from compt.interfaces.paradigm import NOTHING
from compt.registry import TRANSFERERS, Range


class Compose(Transferer):
    """Add up the terms of several transferers.

    The teacher is run as long as any of them has a weight.

    Args:
        transfers: configs of the transferers.
        limit: largest share of the task loss that all of them together may reach; None:
            no limit.
    """

    def __init__(
        self,
        *,
        transfers: Sequence[Annotated[Mapping[str, Any], TRANSFERERS]],
        limit: Annotated[float, Range(positive=True)] | None = 0.9,
    ) -> None:
        super().__init__()
        if not transfers:
            raise ConfigError(
                "compose has no transfers.",
                where="transfer compose",
                do="Give transfers=[dict(...)].",
            )
        # This name stands in the keys of checkpoints.
        self.parts = nn.ModuleList(TRANSFERERS.build(dict(config)) for config in transfers)
        self.limit = limit
        self.needs = self._needs()
        self.sample_index = any(part.sample_index for part in self._transferers())
        self.buffer_rules = self._buffer_rules()

    def strength(self, progress: float) -> float:
        """Return 1 while any of the transferers has a weight, as theirs are in the terms."""
        return float(any(transferer.strength(progress) for transferer in self._transferers()))

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Bind every transferer."""
        for transferer in self._transferers():
            transferer.bind(teacher, student)
        self.needs = self._needs()
        self.buffer_rules = self._buffer_rules()

    def forward(
        self, student: Outputs, teacher: Outputs, *, progress: float, batch: Batch = NOTHING
    ) -> dict[str, Tensor]:
        """Return all terms times their transferer's weight, with a number behind equal names."""
        terms: dict[str, Tensor] = {}
        for transferer in self._transferers():
            if weight := transferer.strength(progress):
                arguments = accepted(transferer.forward, progress=progress, batch=batch)
                for name, term in transferer(student, teacher, **arguments).items():
                    terms[_free_name(name, terms)] = weight * term
        return terms

    def _buffer_rules(self) -> dict[str, BufferRule]:
        return {
            f"parts.{index}.{name}": rule
            for index, transferer in enumerate(self._transferers())
            for name, rule in transferer.buffer_rules.items()
        }

    def _needs(self) -> frozenset[str]:
        return frozenset().union(*(transferer.needs for transferer in self._transferers()))

    def _transferers(self) -> list[Transferer]:
        return list(self.parts)  # type: ignore[arg-type]


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name as it is, or with the first number behind it that is free."""
    if name not in taken:
        return name
    return next(numbered for number in count(2) if (numbered := f"{name}_{number}") not in taken)
