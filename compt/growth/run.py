"""Run a grower on two modules, all or nothing, and report what became of every tensor.

:func:`grow` is what ``compt`` offers as ``compt.grow``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compt.errors import GrowthError
from compt.growth.axes import describe, evaluating, find_layout, unwrap
from compt.growth.operators import tensors_of
from compt.interfaces import Architecture, Grower, Growth, Objective, Outputs
from compt.registry import GROWERS

DEFAULT_GROWER = "compt:lossless"
"""The built-in, also where another package declares a grower of the same short name."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest relative error of outputs that rounding explains, by the number format of the weights."""


def build_grower(grower: str | Mapping[str, Any] | Grower) -> Grower:
    """Build a grower from its name or config, or return the instance that it is already."""
    if isinstance(grower, Grower):
        return grower
    built: Grower = GROWERS.build(dict(type=grower) if isinstance(grower, str) else dict(grower))
    return built


def grow(
    source: nn.Module,
    target: nn.Module,
    grower: str | Mapping[str, Any] | Grower = DEFAULT_GROWER,
    *,
    seed: int = 0,
    objective: Objective | None = None,
) -> Growth:
    """Load weights grown from ``source`` into ``target`` and return the report.

    Args:
        source: the smaller, trained model; stays as it is.
        target: the larger model, freshly initialised; what no source weight reaches
            keeps its values.
        grower: registered name, config dict or instance.
        seed: of the grower's own random numbers; the global random state is not
            touched.
        objective: loss of the target with given parameters on the stage's next batch,
            for learned growers.

    Raises:
        GrowthError: the pair cannot be grown; the target is then unchanged.
        LayoutError: a module has no layout.
    """
    source, target = unwrap(source), unwrap(target)
    source_arch, target_arch = describe(source), describe(target)
    operator = build_grower(grower)
    operator.check(source_arch, target_arch)
    generator = torch.Generator().manual_seed(seed)
    # An objective runs the target where it is trained, and draws there, as dropout does:
    # then CUDA's random states are forked too. Else they are not: that would start CUDA.
    draws_on_cuda = objective is not None and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if draws_on_cuda else ()
    with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(objective is not None):
        torch.manual_seed(seed)
        growth = operator.grow(
            source,
            target,
            source_arch=source_arch,
            target_arch=target_arch,
            generator=generator,
            objective=objective,
        )
    _validate(growth, target, target_arch, type(operator).__name__)
    _load(growth.tensors, target)
    return replace(_measured(growth, source, target), tensors={})


def _validate(growth: Growth, target: nn.Module, arch: Architecture, name: str) -> None:
    """Raise GrowthError unless the growth names every tensor once and fits the target."""
    missing, unknown = set(arch.params) - set(growth.params), set(growth.params) - set(arch.params)
    if missing or unknown:
        raise GrowthError(
            f"The grower {name} did not report every tensor of the target exactly once.",
            where=f"missing: {sorted(missing)[:5]}, unknown: {sorted(unknown)[:5]}",
            do="List every name of target_arch.params in Growth.params.",
        )
    tensors = tensors_of(target)
    for key, value in growth.tensors.items():
        if key not in tensors or value.shape != tensors[key].shape:
            expected = list(tensors[key].shape) if key in tensors else "no such tensor"
            raise GrowthError(
                f"The grower {name} made '{key}' {list(value.shape)}; the target has {expected}."
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise GrowthError(f"The grower {name} made values in '{key}' that are not finite.")


@torch.no_grad()
def _load(values: Mapping[str, Tensor], target: nn.Module) -> None:
    """Copy grown values into the target, in place, so that no storage is shared."""
    for name, tensor in tensors_of(target).items():
        if name in values:
            tensor.copy_(values[name])


def _measured(growth: Growth, source: nn.Module, target: nn.Module) -> Growth:
    """Add the measured difference of the outputs, and correct a claim that it refutes."""
    error = output_error(source, target)
    dtype = next((param.dtype for param in target.parameters()), torch.float32)
    # "not <=" and not ">": an error that is not a number refutes the claim too.
    if growth.function_preserving and error is not None and not error <= TOLERANCE.get(dtype, 1e-4):
        reason = (
            f"the outputs differ by {error:.1e} although the weights allow equality: the two "
            "models differ in something that weights do not carry (activation, epsilon, pooling, "
            "number format)"
        )
        return replace(growth, function_preserving=False, reason=reason, error=error)
    return replace(growth, error=error)


def output_error(source: nn.Module, target: nn.Module, seed: int = 0) -> float | None:
    """Measure the largest difference of two modules' outputs on one random input.

    It is relative to the largest entry of the source's output. None where the layouts
    cannot probe the modules or no output has the same shape in both.
    """
    source_outputs, target_outputs = _probe(source, seed), _probe(target, seed)
    if not source_outputs or not target_outputs:
        return None
    errors = [
        _relative_error(output, target_outputs[name])
        for name, output in source_outputs.items()
        if name in target_outputs and output.shape == target_outputs[name].shape
    ]
    return max(errors) if errors else None


@torch.no_grad()
def _probe(module: nn.Module, seed: int) -> Outputs | None:
    """Return a module's outputs on random input that depends on the seed alone."""
    # Forked, as a model's forward may draw from the global state (masks do).
    with torch.random.fork_rng(devices=[]), evaluating(module):
        return find_layout(module).probe(module, torch.Generator().manual_seed(seed))


def _relative_error(expected: Tensor, actual: Tensor) -> float:
    largest = expected.abs().max().clamp_min(1e-30)  # an output may be all zeros
    return ((expected - actual).abs().max() / largest).item()
