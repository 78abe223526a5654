"""Deliver an average of a stage's weights in the place of the last ones."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS

from compt.config.averages import Average
from compt.report.outcome import AVERAGE


@HOOKS.register_module(name="ComptAverageHook")
class AverageHook(EMAHook):
    """mmengine's EMAHook, told how to average by one number.

    Evaluations see the average, checkpoints hold it beside the trained weights, and the stage
    delivers it. Buffers are the trained model's.

    Args:
        momentum: share of the newest weights in an exponential average; None for a plain mean.
        begin_iter: iterations after which the first weights are taken.
    """

    delivers = AVERAGE

    def __init__(self, momentum: float | None = None, *, begin_iter: int = 0) -> None:
        if momentum is None:
            super().__init__("StochasticWeightAverage", begin_iter=begin_iter)
        else:
            super().__init__(momentum=momentum, begin_iter=begin_iter)


def average_hook(average: Average | None, iters: int) -> list[dict[str, Any]]:
    """Return the config of the hook for an average, none where there is nothing to average."""
    if average is None or not iters:
        return []
    return [{"type": "ComptAverageHook", **average.hook_options(iters)}]
