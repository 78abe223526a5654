"""A grower that learns, for tests."""

from __future__ import annotations

from dataclasses import replace

import torch

import compt
from compt.growers.leading_block import LeadingBlock


@compt.GROWERS.register_module(name="learner", force=True)
class Learner(LeadingBlock):
    """Grows the leading block, then learns every tensor on the stage's own data.

    ``steps`` steps of AdamW; ``announced`` is how many it announces, None the truth.
    """

    def __init__(self, *, steps: int = 4, announced: int | None = None) -> None:
        super().__init__()
        self.steps = steps
        self.objective_calls = steps if announced is None else announced

    def grow(self, source, target, *, objective=None, **others):
        growth = super().grow(source, target, **others)
        learned = {name: value.clone().requires_grad_() for name, value in growth.tensors.items()}
        optimizer = torch.optim.AdamW(learned.values(), lr=1e-2)
        for _ in range(self.steps):
            optimizer.zero_grad()
            objective(learned).backward()
            optimizer.step()
        return replace(
            growth,
            tensors={name: value.detach() for name, value in learned.items()},
            params=dict.fromkeys(growth.params, "expanded"),
        )
