"""Growth under observation, for the contracts of growers and of layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compt.growth.run import grow
from compt.interfaces import Architecture, Grower, Growth, Objective
from compt.random_state import random_state
from compt.testing._shared import changed, drawn_since, snapshot, traces


class Watched(Grower):
    """A grower that notes what the grower inside it does to its surroundings."""

    def __init__(self, inner: Grower) -> None:
        self.inner = inner
        self.calls = 0
        """How often the objective was called."""
        self.claims: list[Growth] = []
        """What the grower itself returned.

        ``compt.grow`` returns another report where its measurement refutes a claim.
        """
        self.drawn: list[str] = []
        """Libraries whose global random state the last growth changed."""
        self.touched: list[str] = []
        """Tensors and traces that were changed in the two modules."""

    def check(self, source: Architecture, target: Architecture) -> None:
        """Ask the grower."""
        self.inner.check(source, target)

    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        objective: Objective | None = None,
        **options: Any,
    ) -> Growth:
        """Grow, and note what has changed meanwhile."""
        modules = {"source": source, "target": target}
        values = {role: snapshot(module) for role, module in modules.items()}
        marks = {role: traces(module) for role, module in modules.items()}
        state = random_state()
        counted = None if objective is None else self._counted(objective)
        claim = self.inner.grow(source, target, objective=counted, **options)
        self.drawn = drawn_since(state)
        for role, module in modules.items():
            tensors = sorted(changed(values[role], module))
            self.touched += [f"'{name}' of the {role}" for name in tensors]
            now = traces(module)
            left = [kind for kind, mark in now.items() if mark != marks[role][kind]]
            self.touched += [f"{kind} of the {role}" for kind in left]
        self.claims.append(claim)
        return claim

    def _counted(self, objective: Objective) -> Objective:
        """Return an objective that counts its calls and leaves the random state alone."""

        def ask(params: Mapping[str, Tensor]) -> Tensor:
            self.calls += 1
            # a target with dropout draws at every call, which is not the grower's doing
            with torch.random.fork_rng(devices=[]):
                return objective(params)

        return ask


@dataclass
class Grown:
    """Everything that is known of one growth."""

    source: nn.Module
    target: nn.Module
    """The target after growth."""
    fresh: dict[str, Tensor]
    """The target's values before it."""
    claim: Growth
    """What the grower itself reports."""
    report: Growth
    """What compt reports, which has measured the outputs."""
    watched: Watched = field(repr=False)


def grow_watched(
    watched: Watched,
    source: nn.Module,
    target: nn.Module,
    *,
    seed: int = 0,
    objective: Objective | None = None,
) -> Grown:
    """Grow a target in place.

    Raises:
        GrowthError: the grower refuses the pair, or compt its result.
    """
    fresh = snapshot(target)
    report = grow(source, target, watched, seed=seed, objective=objective)
    return Grown(source, target, fresh, watched.claims[-1], report, watched)
