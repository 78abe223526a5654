"""No growth: the larger model starts from its own random initialisation."""

from __future__ import annotations

import torch
from torch import nn

from compt.interfaces import Architecture, Grower, Growth, Objective


class Scratch(Grower):
    """Leave the target as its constructor initialised it; any two architectures will do."""

    def check(self, source: Architecture, target: Architecture) -> None:
        """Accept every pair."""

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
        """Report every target tensor as initialised and every source tensor as dropped."""
        return Growth(
            params={
                n: "shared" if p.tied_to else "initialised" for n, p in target_arch.params.items()
            },
            dropped=tuple(source_arch.params),
            reason="nothing is inherited",
        )
