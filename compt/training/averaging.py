"""Deliver an average of a stage's weights in the place of the last ones."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner

from compt.config.averages import Average
from compt.report.outcome import AVERAGE
from compt.training.sharding import is_sharded, shared_like, tensors_alone
from compt.training.stage import stage_model


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

    def before_run(self, runner: Runner) -> None:
        """Copy the model, or where it is sharded the tensors of which each process has a share."""
        stage = stage_model(runner)
        if not is_sharded(stage):
            super().before_run(runner)
            return
        self.src_model = stage
        self.ema_model = MODELS.build(self.ema_cfg, default_args={"model": tensors_alone(stage)})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from an average that may have been saved unsharded, and be sharded here."""
        own = self.src_model.state_dict()
        checkpoint["state_dict"] = {
            name: shared_like(tensor, own.get(name))
            for name, tensor in checkpoint["state_dict"].items()
        }
        super().after_load_checkpoint(runner, checkpoint)


def average_hook(average: Average | None, iters: int) -> list[dict[str, Any]]:
    """Return the config of the hook for an average, none where there is nothing to average."""
    if average is None or not iters:
        return []
    return [{"type": "ComptAverageHook", **average.hook_options(iters)}]
