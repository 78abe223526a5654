"""Run a grower on two modules, all or nothing, and report what became of every tensor.

:func:`grow` is what ``compt`` offers as ``compt.grow``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compt.errors import GrowthError
from compt.growth.axes import describe, unwrap
from compt.growth.differences import obstacles
from compt.growth.measure import TOLERANCE, output_error, rounding_error
from compt.growth.operators import tensors_of
from compt.interfaces import Architecture, Grower, Growth, Objective
from compt.registry import GROWERS
from compt.weights import not_finite

DEFAULT_GROWER = "compt:lossless"
"""The built-in, also where another package declares a grower of the same short name."""

UNKNOWN = (
    "the two models differ in something that weights do not carry (activation, epsilon, pooling, a "
    "constant of the size), or the layout says otherwise than they compute"
)
"""Why outputs differ where no rule says it."""

MARGIN = 4.0
"""How much more than rounding the source's weights may rounding the grown weights change.

It was 2 at most in toys of 2 to 24 blocks, in float32, bfloat16 and float16.
"""


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
    archs = describe(source), describe(target)
    growth = load_grown(source, target, archs, grower, seed=seed, objective=objective)
    return judged(growth, source, target, archs)


def load_grown(
    source: nn.Module,
    target: nn.Module,
    archs: tuple[Architecture, Architecture],
    grower: str | Mapping[str, Any] | Grower,
    *,
    seed: int = 0,
    objective: Objective | None = None,
) -> Growth:
    """Do what :func:`grow` does, but leave the grower's claim unmeasured.

    ``archs`` are those of the source and of the target; the others are as there.
    """
    source_arch, target_arch = archs
    operator = build_grower(grower)
    operator.check(source_arch, target_arch)
    with seeded(seed, learns=objective is not None) as generator:
        growth = operator.grow(
            source,
            target,
            source_arch=source_arch,
            target_arch=target_arch,
            generator=generator,
            objective=objective,
        )
    check_growth(growth, target, target_arch, type(operator).__name__)
    _load(growth.tensors, target)
    return replace(growth, tensors={})


@contextmanager
def seeded(seed: int, *, learns: bool = False) -> Iterator[torch.Generator]:
    """Yield a grower's generator, with the global random state forked and seeded.

    Args:
        seed: of both.
        learns: whether the grower runs the target, with gradients.
    """
    # An objective runs the target where it is trained, and draws there, as dropout does:
    # then CUDA's random states are forked too. Else they are not: that would start CUDA.
    draws_on_cuda = learns and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if draws_on_cuda else ()
    with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(learns):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def check_growth(growth: Growth, target: nn.Module, arch: Architecture, name: str) -> None:
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
        check_value(key, value, name)


def check_value(key: str, value: Tensor, name: str) -> None:
    """Raise GrowthError where a grower has made values that are not finite."""
    if not_finite({key: value}):
        raise GrowthError(f"The grower {name} made values in '{key}' that are not finite.")


@torch.no_grad()
def _load(values: Mapping[str, Tensor], target: nn.Module) -> None:
    """Copy grown values into the target, in place, so that no storage is shared."""
    for name, tensor in tensors_of(target).items():
        if name in values:
            tensor.copy_(values[name])


def judged(
    growth: Growth,
    source: nn.Module,
    target: nn.Module,
    archs: tuple[Architecture, Architecture],
    *,
    dtype: torch.dtype | None = None,
) -> Growth:
    """Return the report with a claim that is measured or, where nothing can be, proven from rules.

    The grower's own claim is of the weights alone. Rules add what weights do not carry,
    and a measurement has the last word, both ways: a model may differ in what no rule
    knows, and a tensor that was dropped may not matter.

    Args:
        growth: the report of the grower.
        source: the smaller model.
        target: the larger one, grown.
        archs: of both.
        dtype: number format that the target's weights are rounded to; by default its own.
    """
    claimed = growth.function_preserving
    reasons = obstacles(growth, source, target, archs) if claimed else [growth.reason]
    common = _common_sizes(*archs)
    error = output_error(source, target, common=common)
    if error is None:
        reason = "; ".join([*reasons, "not measured, as no outputs of the two can be compared"])
        return replace(growth, function_preserving=not reasons, reason=reason)
    doubtful = not claimed or bool(growth.dropped)
    if _is_rounding(error, source, target, dtype, doubtful=doubtful, common=common):
        return replace(growth, function_preserving=True, reason="", error=error)
    reason = "; ".join(reasons)
    if claimed:
        reason = f"the outputs differ by {error:.1e}: {reason or UNKNOWN}"
    return replace(growth, function_preserving=False, reason=reason, error=error)


def _common_sizes(source: Architecture, target: Architecture) -> dict[str, int]:
    """Return of every axis how many units both models have at least."""
    return {
        axis: min(size, target.sizes[axis])
        for axis, size in source.sizes.items()
        if axis in target.sizes
    }


def _is_rounding(
    error: float,
    source: nn.Module,
    target: nn.Module,
    dtype: torch.dtype | None = None,
    *,
    doubtful: bool,
    common: Mapping[str, int] | None = None,
) -> bool:
    """Return whether a measured error is no more than the rounding of the target's weights.

    Args:
        error: of the outputs, relative, computed in full precision.
        source: the smaller model.
        target: the larger one, grown.
        dtype: as for :func:`judged`.
        doubtful: whether there is reason to believe that the function is not kept. Then
            the error must not even reach that of rounding, and the outputs have to
            depend on the weights.
        common: as of :func:`output_error`.
    """
    exact = TOLERANCE[torch.float64]
    formats = {param.dtype for param in target.parameters() if param.is_floating_point()}
    dtype = dtype or max(formats or {torch.float32}, key=lambda kind: torch.finfo(kind).eps)
    # "not <=" and not ">": an error that is not a number is no rounding either.
    if not error <= max(exact, TOLERANCE.get(dtype, exact)):
        return False
    if error <= exact and not doubtful:
        return True
    rounding = rounding_error(source, target, dtype, common=common)
    if doubtful:
        return bool(rounding) and error <= max(exact, rounding or 0.0)
    return rounding is None or error <= max(exact, MARGIN * rounding)
