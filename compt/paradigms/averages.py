"""Keep a running average of a module beside it, as teachers of self-distillation are."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def average_of(module: M) -> M:
    """Return a copy of a module that no optimizer trains, for an average to begin with."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move an average's parameters towards a module's, and copy its buffers.

    Call it in ``after_step``.

    Args:
        average: of :func:`average_of`.
        module: it was made of.
        momentum: share that stays, from 0 to 1.
    """
    for own, param in zip(average.parameters(), module.parameters(), strict=True):
        own.lerp_(param, 1 - momentum)
    for state, buffer in zip(average.buffers(), module.buffers(), strict=True):
        state.copy_(buffer)


@torch.no_grad()
def restart_average(average: nn.Module, module: nn.Module) -> None:
    """Let an average begin anew with the module itself, as a grown member's in ``after_growth``."""
    average.load_state_dict(module.state_dict())


def rising(momentum: float, progress: float) -> float:
    """Return a momentum that rises to 1 in the stage, as a cosine.

    Args:
        momentum: at the start.
        progress: share of the stage that is done, from 0 to 1, as ``after_step`` is told.
    """
    return 1 - (1 - momentum) * (1 + math.cos(math.pi * progress)) / 2
