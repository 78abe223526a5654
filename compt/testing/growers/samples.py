"""Modules to grow, and losses to grow them by."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from compt.growth.operators import tensors_of
from compt.interfaces import Objective
from compt.testing._shared import randomised
from compt.testing.toy import INPUTS, ToyNet

Pair = tuple[nn.Module, nn.Module]
"""Source and target."""
SIZES = (
    ((16, 2), (32, 4)),
    ((16, 2), (24, 3)),
    ((16, 2), (40, 2)),
    ((16, 2), (16, 5)),
    ((16, 2), (16, 2)),
)
"""Width and depth of the source and of the target, at multiples and at others."""


def toy_pairs() -> list[Pair]:
    """Return toy sources and targets of all SIZES, with LayerNorm and with RMSNorm."""
    return [
        (randomised(ToyNet(*small, rms=rms).double()), ToyNet(*large, rms=rms).double())
        for small, large in SIZES
        for rms in (False, True)
    ]


def noisy(source: nn.Module, names: set[str]) -> nn.Module:
    """Return a copy with noise on the tensors of these names."""
    copied, generator = copy.deepcopy(source), torch.Generator().manual_seed(9)
    for name, tensor in tensors_of(copied).items():
        if name in names and tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.add_(noise.to(tensor))
    return copied


def classification(target: ToyNet) -> Objective:
    """Return the cross entropy of random points in random classes, new at every call."""
    batches = torch.Generator().manual_seed(0)
    classes = target.head.out_features

    def loss(params: Mapping[str, Tensor]) -> Tensor:
        points = torch.randn(64, INPUTS, generator=batches, dtype=torch.float64)
        points = points.to(target.head.weight)
        labels = torch.randint(classes, (64,), generator=batches).to(points.device)
        return F.cross_entropy(functional_call(target, dict(params), (points,)), labels)

    return loss


def own_loss(objective: Objective, target: nn.Module) -> Tensor:
    """Return the loss of the target's own parameters."""
    return objective(dict(target.named_parameters()))
