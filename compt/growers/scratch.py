"""Do without growth and start the larger model from its own random initialisation."""

from __future__ import annotations

import torch
from torch import nn

from compt.interfaces import Architecture, Grower, Growth, Objective, Status


class Scratch(Grower):
    """Leave the target as its constructor initialised it, whatever the source is."""

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
        statuses: dict[str, Status] = {
            name: "shared" if param.tied_to else "initialised"
            for name, param in target_arch.params.items()
        }
        return Growth(
            params=statuses,
            dropped=tuple(source_arch.params),
            reason="nothing is inherited",
        )
