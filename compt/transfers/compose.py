"""Run several transfers at once, each with its own weight and schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Transferer
from compt.registry import TRANSFERERS


class Compose(Transferer):
    """Add up the terms of several transferers.

    The teacher is run as long as any of them has a weight.

    Args:
        transfers: configs of the transferers.
        limit: largest share of the task loss that all of them together may reach; None:
            no limit.
    """

    def __init__(
        self, *, transfers: Sequence[Mapping[str, Any]], limit: float | None = 0.9
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

    def strength(self, progress: float) -> float:
        """Return 1 while any of the transferers has a weight, as theirs are in the terms."""
        return float(any(transferer.strength(progress) for transferer in self._transferers()))

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Bind every transferer."""
        for transferer in self._transferers():
            transferer.bind(teacher, student)
        self.needs = self._needs()

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return all terms times their transferer's weight, with a number behind equal names."""
        terms: dict[str, Tensor] = {}
        for transferer in self._transferers():
            if weight := transferer.strength(progress):
                for name, term in transferer(student, teacher, progress=progress).items():
                    terms[_free_name(name, terms)] = weight * term
        return terms

    def _needs(self) -> frozenset[str]:
        return frozenset().union(*(transferer.needs for transferer in self._transferers()))

    def _transferers(self) -> list[Transferer]:
        return list(self.parts)  # type: ignore[arg-type]


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name as it is, or with the first number behind it that is free."""
    if name not in taken:
        return name
    return next(numbered for number in count(2) if (numbered := f"{name}_{number}") not in taken)
