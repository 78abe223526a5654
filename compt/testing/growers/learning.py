"""Checks that all of a grown model can learn."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from compt.errors import GrowthError
from compt.growth.axes import describe
from compt.growth.measure import output_error
from compt.growth.operators import tensors_of
from compt.interfaces import Objective
from compt.testing._shared import require, some, without_gradient
from compt.testing.growers.branches import ENDS, branch_pair
from compt.testing.growers.reports import require_claim
from compt.testing.growers.samples import classification, own_loss
from compt.testing.growers.trial import Trial
from compt.testing.growers.watched import Grown

STEPS = 20
"""How many steps a parameter has to get a gradient in."""


def require_learning(target: nn.Module, objective: Objective, *, elements: bool) -> None:
    """Require that a gradient reaches every parameter within a few steps of growing.

    Args:
        target: the grown model, which is trained.
        objective: its loss.
        elements: whether all elements of a parameter have to have a gradient.
    """
    loss = partial(own_loss, objective, target)
    dead = without_gradient(target, loss, steps=STEPS, elements=elements)
    require(
        not dead,
        f"In {STEPS} steps no gradient reaches some of {some(dead)}.",
        "Never zero both what a unit reads and what it writes: leave one side random.",
    )


def require_learning_blocks(trial: Trial) -> None:
    """Require that new blocks learn, and claims that hold, however a block's branch ends."""
    for end in ENDS:
        source, target = branch_pair(end)
        try:
            grown = trial.grow(source, target, refusable=True)
        except GrowthError:
            continue
        require_claim(grown, output_error(source, target, seed=1) or 0.0, torch.float64)
        loss = partial(own_loss, classification(target), target)
        dead = without_gradient(target, loss, steps=STEPS)
        require(
            not dead,
            f"Where a block ends in a {end}, no gradient reaches {some(dead)} in {STEPS} steps.",
            "Of a weight and the norm, factor or gate that it writes through zero the latter "
            "alone: compt.writes_stream(param, arch) is True of what has to be zero. Or let new "
            "blocks be copies, as clone and stack do with blocks='copy'.",
        )


def require_distinct_units(grown: Grown) -> None:
    """Require that no two units of an axis that grew are alike in all tensors.

    Such units get the same gradients, and so stay copies of each other for ever.
    """
    for axis, units in _units(grown).items():
        # Rounded, as the weights of copies may differ in their last bits.
        scaled = (units / units.abs().max().clamp_min(1e-30) * 1e9).round()
        num_distinct = len(torch.unique(scaled, dim=0))
        require(
            num_distinct == len(units),
            f"Of the {len(units)} units of '{axis}' only {num_distinct} differ in any tensor, and "
            "units that are alike in all that they read and write stay alike for ever.",
            "Split what reads the copies unevenly, as clone and lossless do with noise=1.0.",
        )


def _units(grown: Grown) -> dict[str, Tensor]:
    """Return all that belongs to each unit of the axes that grew, [units, entries] by axis."""
    source, target = describe(grown.source), describe(grown.target)
    tensors = tensors_of(grown.target)
    joined = {axis for p in target.params.values() if p.sections for axis in p.axes}
    entries: dict[str, list[Tensor]] = {}
    for name, param in target.params.items():
        if param.tied_to or param.sections or param.kind == "constant":
            continue
        value = tensors[name].double().reshape(target.shape(param))
        for dim, axis in enumerate(param.axes):
            size = target.size(axis)
            if axis not in joined and not axis.isdigit() and size > source.sizes.get(axis, size):
                entries.setdefault(axis, []).append(value.movedim(dim, 0).reshape(size, -1))
    return {axis: torch.cat(values, dim=1) for axis, values in entries.items()}
