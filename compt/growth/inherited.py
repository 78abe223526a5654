"""Let a paradigm reset what a grown model must not inherit."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compt.errors import PluginError
from compt.growth.measure import TOLERANCE, output_error
from compt.growth.operators import tensors_of
from compt.interfaces import Growth, Paradigm


def finish_growth(
    paradigm: Paradigm, source: nn.Module, target: nn.Module, growth: Growth, *, seed: int = 0
) -> tuple[Growth, tuple[str, ...]]:
    """Reset what a grown model must not inherit, and return the true report and what was set.

    Args:
        paradigm: of both models.
        source: the smaller model.
        target: the larger one, grown; it is changed in place.
        growth: the report of its growth.
        seed: of what is drawn.

    Raises:
        PluginError: of :func:`reset_inherited`.
    """
    reset = reset_inherited(paradigm, target, seed=seed)
    if not (reset and growth.function_preserving):
        return growth, reset
    error = output_error(source, target)
    dtype = next((param.dtype for param in target.parameters()), torch.float32)
    # "not <=" and not ">": an error that is not a number refutes the claim too.
    if error is not None and not error <= TOLERANCE.get(dtype, 1e-4):
        reason = f"{type(paradigm).__name__}.after_growth() sets what the outputs depend on"
        growth = replace(growth, function_preserving=False, reason=reason, error=error)
    return growth, reset


def reset_inherited(paradigm: Paradigm, model: nn.Module, *, seed: int = 0) -> tuple[str, ...]:
    """Run the paradigm's ``after_growth`` on a grown model, and return the names of what it set.

    The global random state is forked, and seeded for what is drawn.

    Raises:
        PluginError: it sets what is trained, so that the report of the growth and the optimizer's
            grown state would no longer be true, or changes a shape.
    """
    if type(paradigm).after_growth is Paradigm.after_growth:
        return ()
    name = f"{type(paradigm).__name__}.after_growth()"
    trained = {key for key, param in model.named_parameters() if param.requires_grad}
    grown = {key: tensor.clone() for key, tensor in tensors_of(model).items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        paradigm.after_growth(model)
    tensors = tensors_of(model)
    shapes = [{key: tensor.shape for key, tensor in each.items()} for each in (grown, tensors)]
    if shapes[0] != shapes[1]:
        differing = sorted(key for key, _ in shapes[0].items() ^ shapes[1].items())
        raise PluginError(
            f"{name} changes the names or shapes of tensors: {sorted(set(differing))[:4]}.",
            do="Write values in place: model.queue.zero_(), model.centre.copy_(...).",
        )
    changed = tuple(key for key, tensor in tensors.items() if not torch.equal(grown[key], tensor))
    if set(changed) & trained:
        raise PluginError(
            f"{name} changes parameters that are trained: {sorted(set(changed) & trained)[:4]}.",
            do="Reset buffers and parameters with requires_grad=False alone; what is trained is "
            "for the grower.",
        )
    return changed
