"""Run a model on a batch piece by piece, for a loss that needs the outputs of the whole batch.

A contrastive loss compares every sample with all others, so a batch cannot be accumulated from
smaller ones. What limits its size is the memory of the model's activations, not of its outputs.
Those activations are kept for one piece at a time, and computed once more in the backward pass.
Loss and gradients are those of the whole batch.
Source: Gao et al. 2021, arXiv 2101.06983 (GradCache).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from compt.errors import ConfigError
from compt.interfaces.paradigm import Batch, Outputs

Forward = Callable[..., Outputs]
"""Of a model and a batch, and for a teacher of the outputs that are needed."""
WHERE = "mini_batch_size"


def in_mini_batches(forward: Forward, size: int) -> Forward:
    """Return a forward that runs so many samples at a time, and returns what the batch's would.

    Outputs without one row a sample, such as a temperature, are those of the first mini-batch.

    Args:
        forward: of a paradigm; the outputs of a sample do not depend on the samples beside it.
        size: samples at a time, 2 or more.
    """
    row_outputs: set[str] = set()

    def run(model: nn.Module, batch: Batch, *needs: Any) -> Outputs:
        length = batch_length(batch)
        if length <= size:
            return forward(model, batch, *needs)
        if not row_outputs:
            row_outputs.update(_outputs_with_rows(forward, model, batch, needs))
        pieces = [rows_of(batch, length, i, i + size) for i in range(0, length, size)]
        outputs = [_recomputed(forward, model, piece, needs) for piece in pieces]
        return {
            name: torch.cat([output[name] for output in outputs]) if name in row_outputs else first
            for name, first in outputs[0].items()
        }

    return run


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise ConfigError where a sample's outputs depend on the samples beside it."""
    names = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    if names:
        raise ConfigError(
            f"The model has {len(names)} batch norms ('{names[0]}'): over a mini-batch they have "
            "other statistics than over the batch, and would count them twice.",
            where=WHERE,
            do="Leave mini_batch_size out, or take a model without batch norms.",
        )


def batch_length(batch: Batch) -> int:
    """Return the number of samples of a batch.

    Raises:
        ConfigError: its tensors do not all have one row a sample.
    """
    lengths: dict[str, int] = {}
    _note_lengths(batch, "batch", lengths)
    if len(set(lengths.values())) == 1:
        return next(iter(lengths.values()))
    rows = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "none"
    raise ConfigError(
        f"The batch cannot be divided, as its tensors differ in their rows ({rows}).",
        where=WHERE,
        do="Leave mini_batch_size out.",
    )


def _note_lengths(value: Any, name: str, lengths: dict[str, int]) -> None:
    """Note the rows of every tensor in a value that has any."""
    if isinstance(value, Tensor):
        if value.dim():
            lengths[name] = len(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _note_lengths(item, f"{name}.{key}", lengths)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _note_lengths(item, f"{name}[{i}]", lengths)


def rows_of(value: Any, length: int, start: int, stop: int) -> Any:
    """Return some samples of a batch.

    Args:
        value: the batch, or what is in it; lists without tensors have one item a sample if they
            are as long as the batch.
        length: of the batch.
        start: the first sample.
        stop: the one behind the last.
    """
    if isinstance(value, Tensor):
        return value[start:stop] if value.dim() else value
    if isinstance(value, Mapping):
        return {name: rows_of(item, length, start, stop) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) == length and not any(isinstance(item, Tensor) for item in value):
            return value[start:stop]
        return type(value)(rows_of(item, length, start, stop) for item in value)
    return value


def _outputs_with_rows(
    forward: Forward, model: nn.Module, batch: Batch, needs: tuple[Any, ...]
) -> set[str]:
    """Return the names of the outputs that have one row a sample, from running one and two."""
    devices: list[int] | None = None if torch.cuda.is_available() else []
    length = batch_length(batch)
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        single, pair = (
            forward(model, rows_of(batch, length, 0, count), *needs) for count in (1, 2)
        )
    return {name for name, output in pair.items() if output.shape != single[name].shape}


def _recomputed(
    forward: Forward, model: nn.Module, batch: Batch, needs: tuple[Any, ...]
) -> Outputs:
    """Run a model, and keep no more than its inputs and outputs for the backward pass."""
    if not torch.is_grad_enabled():
        return forward(model, batch, *needs)
    outputs: Outputs = checkpoint(forward, model, batch, *needs, use_reentrant=False)
    return outputs
