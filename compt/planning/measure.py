"""Count parameters and FLOPs of models on the meta device, without weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from compt.errors import ComptError, ConfigError
from compt.growth.models import architecture
from compt.interfaces import (
    Architecture,
    Batch,
    Member,
    Outputs,
    Paradigm,
    check_signatures,
    ruled_buffers,
)
from compt.planning.flops import FlopCounter

MAX_MODULES = 50_000
"""Of one model; a config with a million layers would be built for minutes, or for ever."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise ConfigError where a model gets more modules than any has."""
    num_modules = 0

    def count(*_: Any) -> None:
        nonlocal num_modules
        num_modules += 1
        if num_modules > MAX_MODULES:
            raise ConfigError(f"The model has more than {MAX_MODULES:,} modules.")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def meta_model(paradigm: Paradigm, member: Member, counter: FlopCounter) -> nn.Module:
    """Build a member's model without memory for its weights.

    Under the counter, what fills fresh weights of one shape runs once.

    Raises:
        ConfigError: it cannot be built.
        PluginError: a method of the paradigm does not take what it is given, or it has a rule for a
            buffer that the model lacks.
    """
    check_signatures(paradigm, Paradigm)
    try:
        with torch.device("meta"), counter, _bounded():
            model = paradigm.build_model(member)
        if empty := [name for name, param in model.named_parameters() if not param.numel()]:
            raise ValueError(f"'{empty[0]}' has no elements")
        ruled_buffers(paradigm.buffer_rules, model, type(paradigm).__name__)
        return model
    except ComptError:
        raise
    except Exception as error:  # whatever a library raises
        raise ConfigError(
            f"The model of member '{member.name}' cannot be built: {type(error).__name__}: {error}",
            where=f"chain, member '{member.name}'",
        ) from error


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters that are trained, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class Measured(NamedTuple):
    """What one batch through a model tells."""

    arch: Architecture
    flops: float
    """Of a sample, forward and backward."""
    batch: Batch
    """The batch, which a teacher is run on too."""


def measure_training(
    paradigm: Paradigm, model: nn.Module, batch_size: int, counter: FlopCounter
) -> Measured:
    """Describe a meta model, and count its FLOPs a sample, forward and backward.

    Raises:
        ConfigError: the model cannot be run, or has nothing to train.
    """
    if not count_parameters(model):
        raise ConfigError(
            "No parameter of the model is trained: all have requires_grad=False.",
            do="Leave some to train: build_model() of the paradigm marks those that are not.",
        )
    model.train()  # in eval mode torch fuses attention into an operator without a count

    def step() -> Outputs:
        outputs = paradigm.forward(model, batch)
        losses = paradigm.loss(outputs, batch).values()
        sum(losses).backward()  # type: ignore[union-attr]
        return outputs

    try:
        batch = paradigm.example_batch(model, batch_size)
        flops, outputs = counter.count(step)
    except ComptError:
        raise
    except Exception as error:  # whatever a library raises over parts that do not fit each other
        raise ConfigError(
            f"The model cannot be run: {type(error).__name__}: {error}",
            do="Check that its sizes fit each other.",
        ) from error
    return Measured(architecture(paradigm, model, outputs), flops / batch_size, batch)


def measure_frozen(
    paradigm: Paradigm,
    model: nn.Module,
    names: Collection[str],
    batch_size: int,
    counter: FlopCounter,
) -> float:
    """Count the FLOPs a sample of a meta model, forward and backward, with some of it frozen.

    Args:
        paradigm: of the chain.
        model: of the member; it stays as it is.
        names: of the parameters that are not trained.
        batch_size: samples in the batch.
        counter: of the plan.

    Raises:
        ConfigError: nothing else is trained.
    """
    frozen = [param for name, param in model.named_parameters() if name in names]
    try:
        for param in frozen:
            param.requires_grad_(False)
        if not count_parameters(model):
            raise ConfigError(
                f"freeze: it names all {len(frozen)} parameters, and leaves none to train.",
                do="Leave some of them out.",
            )
        return measure_training(paradigm, model, batch_size, counter).flops
    finally:
        for param in frozen:
            param.requires_grad_(True)


def measure_teacher(
    paradigm: Paradigm,
    model: nn.Module,
    batch: Batch,
    batch_size: int,
    needs: frozenset[str],
    counter: FlopCounter,
) -> float:
    """Count the FLOPs a sample of a teacher's forward pass, for no more than is read of it.

    Args:
        paradigm: of the chain.
        model: the teacher.
        batch: of the student, as both see the same in training.
        batch_size: samples in it.
        needs: names of the outputs that are read.
        counter: of the plan.
    """
    with torch.no_grad():
        flops, _ = counter.count(lambda: paradigm.teacher_forward(model, batch, needs))
    return flops / batch_size
