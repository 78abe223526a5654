"""Count parameters and FLOPs of models on the meta device, without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compt.errors import ComptError, ConfigError
from compt.growth.models import architecture
from compt.interfaces import Architecture, Member, Outputs, Paradigm


def meta_model(paradigm: Paradigm, member: Member) -> nn.Module:
    """Build a member's model without memory for its weights.

    Raises:
        ConfigError: it cannot be built.
    """
    try:
        with torch.device("meta"):
            return paradigm.build_model(member)
    except ComptError:
        raise
    except Exception as error:  # whatever a library raises
        raise ConfigError(
            f"The model of member '{member.name}' cannot be built: {type(error).__name__}: {error}",
            where=f"chain, member '{member.name}'",
        ) from error


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_training(
    paradigm: Paradigm, model: nn.Module, batch_size: int
) -> tuple[Architecture, float]:
    """Describe a meta model, and count its FLOPs a sample, forward and backward.

    Raises:
        ConfigError: the model cannot be run.
    """
    model.train()  # in eval mode torch fuses attention into an operator without a count
    batch = paradigm.example_batch(model, batch_size)

    def step() -> Outputs:
        outputs = paradigm.forward(model, batch)
        losses = paradigm.loss(outputs, batch).values()
        sum(losses).backward()  # type: ignore[union-attr]
        return outputs

    try:
        flops, outputs = _counted(step)
    except ComptError:
        raise
    except Exception as error:  # whatever a library raises over parts that do not fit each other
        raise ConfigError(
            f"The model cannot be run: {type(error).__name__}: {error}",
            do="Check that its sizes fit each other.",
        ) from error
    return architecture(paradigm, model, outputs), flops / batch_size


def measure_teacher(
    paradigm: Paradigm, model: nn.Module, batch_size: int, needs: frozenset[str]
) -> float:
    """Count the FLOPs a sample of a teacher's forward pass, for no more than is read of it."""
    batch = paradigm.example_batch(model, batch_size)
    with torch.no_grad():
        flops, _ = _counted(lambda: paradigm.teacher_forward(model, batch, needs))
    return flops / batch_size


def _counted(run: Callable[[], Any]) -> tuple[float, Any]:
    with FlopCounterMode(display=False) as counter:
        result = run()
    return float(counter.get_total_flops()), result
