"""Several transfers at once, each with its own weight and schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Transferer
from compt.registry import TRANSFERERS


class Compose(Transferer):
    """Add up the terms of several transferers; the teacher is run as long as one of them has a
    weight.

    Args:
        transfers: their configs.
        limit: largest share of the task loss that all of them together may reach; None: no limit.
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
        self.parts = nn.ModuleList(TRANSFERERS.build(dict(config)) for config in transfers)
        self.limit = limit
        self.needs = self._needs()

    def strength(self, progress: float) -> float:
        """1 while any of the parts has a weight: theirs are in the terms."""
        return float(any(part.strength(progress) for part in self._transferers()))

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Bind every part."""
        for part in self._transferers():
            part.bind(teacher, student)
        self.needs = self._needs()

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return the parts' terms times their weights; equal names are numbered."""
        terms: dict[str, Tensor] = {}
        for part in self._transferers():
            if weight := part.strength(progress):
                for name, term in part(student, teacher, progress=progress).items():
                    terms[_free(name, terms)] = weight * term
        return terms

    def _needs(self) -> frozenset[str]:
        return frozenset().union(*(part.needs for part in self._transferers()))

    def _transferers(self) -> list[Transferer]:
        return list(self.parts)  # type: ignore[arg-type]


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or with the first number that is free."""
    number = 2
    found = name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found
