"""Schedules of mmengine, written in fractions of a stage, as iterations of it.

All count iterations: a stage is one epoch to mmengine. Those that watch a metric count evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim.scheduler import (
    ConstantParamScheduler,
    CosineAnnealingParamScheduler,
    LinearParamScheduler,
    OneCycleParamScheduler,
    PolyParamScheduler,
)
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from compt.config.entries import LENGTHS, SPAN
from compt.config.keys import listed
from compt.config.rates import class_of, is_a
from compt.errors import ConfigError

MAX_SIMULATED = 1_000
"""Iterations for which a schedule is tried before training."""
GRADUAL = (
    LinearParamScheduler,
    ConstantParamScheduler,
    PolyParamScheduler,
    CosineAnnealingParamScheduler,
)
"""Those that go from one value to another over their length."""


def in_iterations(configs: Any, iters: int) -> list[dict[str, Any]]:
    """Turn schedules written as fractions of a stage into iterations.

    Whole numbers stay as they are. Without a ``begin`` or ``end`` it is the stage's.
    """
    if not iters:  # a member that is given is not trained
        return []
    absolute = [_in_iterations(config, iters) for config in listed(configs)]
    return [config for config in absolute if config is not None]


def scaled(configs: Any, factor: float) -> list[dict[str, Any]]:
    """Return schedules with another peak, for those that name it and ignore the optimizer's."""
    return [
        {**config, "eta_max": factor * config["eta_max"]} if "eta_max" in config else dict(config)
        for config in listed(configs)
    ]


def check_schedule(config: Mapping[str, Any], iters: int) -> None:
    """Try a schedule of :func:`in_iterations` on the first iterations of its stage.

    Raises:
        ConfigError: it begins after the stage, makes a rate negative or not finite, or cannot be
            stepped.
    """
    if watches_metric(config):
        build(config)
        return
    kind, begin, end = config["type"], config["begin"], config["end"]
    if begin >= min(end, iters):
        ends = f", ends at {end}" if end <= begin else ""
        raise ConfigError(f"{kind} begins at iteration {begin}{ends}, and the stage has {iters}.")
    if is_a(config, OneCycleParamScheduler) and not config.get("eta_max"):
        raise ConfigError(f"{kind} needs eta_max, its highest rate.")
    scheduler = build(config)
    name = scheduler.param_name
    for iteration in range(min(iters, MAX_SIMULATED)):
        value = scheduler.optimizer.param_groups[0][name]
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{kind} sets {name} to {value:g} at iteration {iteration}.")
        scheduler.optimizer.step()
        try:
            scheduler.step()
        except (ArithmeticError, ValueError) as error:
            raise ConfigError(
                f"{kind} fails after iteration {iteration}: {type(error).__name__}: {error}."
            ) from error


def watches_metric(config: Mapping[str, Any]) -> bool:
    """Tell whether a schedule follows evaluations, as ReduceOnPlateauLR does."""
    return bool(getattr(class_of(config), "need_val_args", False))


def _in_iterations(config: Mapping[str, Any], iters: int) -> dict[str, Any] | None:
    """Return one schedule, None where no iteration of it is left."""
    if watches_metric(config):
        return {**config, "by_epoch": True}
    absolute = {name: _length(name, value, iters) for name, value in config.items()}
    begin, end = absolute.get("begin", 0), absolute.get("end", iters)
    if end <= begin and _exact(config, "begin", 0, iters) < _exact(config, "end", iters, iters):
        # Shorter than half an iteration. Rates are left as they would be after it.
        if begin >= iters or _ends_as_if_it_had_not_been(config):
            return None
        end = begin + 1
    absolute |= {"begin": begin, "end": end, "by_epoch": False}
    if end == begin + 1 and is_a(config, *GRADUAL) and absolute.get("T_max", 1) == 1:
        # mmengine's begin at their first value, and are at the last after as many iterations less
        # one: a single iteration would be the first value for good.
        absolute["end"] += 1
        if is_a(config, CosineAnnealingParamScheduler):
            absolute["T_max"] = 1
    return absolute


def _length(name: str, value: Any, iters: int) -> Any:
    """Return an argument that is a length in iterations, and any other as it is."""
    if name not in LENGTHS:
        return value
    if isinstance(value, (list, tuple)):
        return [_length(name, length, iters) for length in value]
    if not isinstance(value, float):
        return value
    # A period of no iterations is none, and a rate that falls before the first never was up.
    least = 0 if name in SPAN or not value else 1
    return max(least, round(value * iters))


def _exact(config: Mapping[str, Any], name: str, default: int, iters: int) -> float:
    value = config.get(name, default)
    return value * iters if isinstance(value, float) else value


def _ends_as_if_it_had_not_been(config: Mapping[str, Any]) -> bool:
    """Tell whether a schedule leads back to the rate without it, as warm-ups do."""
    if is_a(config, LinearParamScheduler):
        return bool(config.get("end_factor", 1.0) == 1)
    return is_a(config, ConstantParamScheduler)


def build(config: Mapping[str, Any]) -> Any:
    """Build a schedule, for an optimizer that has what schedules change."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0, momentum=0.5)
    return PARAM_SCHEDULERS.build(dict(config), default_args={"optimizer": optimizer})
