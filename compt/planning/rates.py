"""Work out what schedules make of a learning rate, over a stage of any length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.registry import PARAM_SCHEDULERS
from numpy.typing import NDArray

from compt.config.entries import LENGTHS, SPAN
from compt.config.keys import listed
from compt.config.rates import class_of
from compt.errors import ConfigError

STEPS = 500
"""Steps that stand for a stage, however long it is."""

Floats = NDArray[np.float64]


class Schedule:
    """The learning rates of a stage of any length, relative to the highest of them.

    Args:
        configs: schedules as a config has them, where floats are fractions of the stage and whole
            numbers iterations.
    """

    def __init__(self, configs: Any) -> None:
        self.configs = listed(configs)
        self._known: dict[str, Floats] = {}

    def rates(self, iters: int) -> Floats:
        """Return one rate for each of :data:`STEPS` equal parts of a stage.

        Raises:
            ConfigError: a schedule follows evaluations.
        """
        scaled = [_in_steps(config, iters) for config in self.configs]
        key = repr(scaled)
        if key not in self._known:  # schedules in fractions are the same at every length
            self._known[key] = _simulated([config for config in scaled if config is not None])
        return self._known[key]

    def warmup_end(self, iters: int) -> float:
        """Return the iteration at which the rate is first at its highest."""
        return float(self.rates(iters).argmax()) * iters / STEPS


def _simulated(configs: list[dict[str, Any]]) -> Floats:
    """Return the rates of schedules whose lengths are steps."""
    import mmengine.optim  # noqa: F401 - registers schedules; it brings transformers, for a second

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    default = {"optimizer": optimizer}
    built = [PARAM_SCHEDULERS.build(config, default_args=default) for config in configs]
    rates = np.empty(STEPS)
    for step in range(STEPS):
        rates[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    relative: Floats = np.maximum(rates, 0.0) / rates.max()
    return relative


def _in_steps(config: Mapping[str, Any], iters: int) -> dict[str, Any] | None:
    """Return a schedule whose lengths are steps, None where none of it is left."""
    if getattr(class_of(config), "need_val_args", False):
        raise ConfigError(
            f"{config['type']} follows evaluations, so its rates cannot be foretold.",
            where="param_scheduler",
            do="Use a schedule over the stage, such as CosineAnnealingLR.",
        )
    own = {name: _length(name, value, iters) for name, value in config.items()}
    begin, end = own.get("begin", 0), own.get("end", STEPS)
    if begin >= min(end, STEPS):
        return None
    # mmengine's are at their last value one step before their end, and need one to get there.
    return {**own, "begin": begin, "end": max(end, begin + 2), "by_epoch": False}


def _length(name: str, value: Any, iters: int) -> Any:
    """Return an argument that is a length in steps, and any other as it is."""
    if name not in LENGTHS or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_length(name, length, iters) for length in value]
    share = value if isinstance(value, float) else value / iters
    return max(0 if name in SPAN else 1, round(share * STEPS))
