"""Follow a stage with hooks of mmengine, without waiting for the device.

What a hook does to a stage's end and weights is judged in :mod:`compt.training.hook_effects`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

MAX_HISTORY = 1000
"""Values that a log keeps of what is noted every iteration."""
ProgressCallback = Callable[[int, int, float], None]
"""Called with the iterations that are done, those of the stage, and the loss.

The loss is NaN where there is none yet.
"""


@HOOKS.register_module(name="ComptRuntimeInfoHook")
class IntervalRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, reading losses only every ``interval`` iterations.

    Reading one waits until the device has finished the iteration.
    """

    def __init__(self, interval: int = 10) -> None:
        super().__init__()
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Keep short histories of what is noted every iteration."""
        super().before_train(runner)
        # A note copies the whole history. At mmengine's own length, a million values, a
        # long stage would spend ever more time on them.
        for name in (*runner.optim_wrapper.get_lr(), "time", "data_time"):
            history = HistoryBuffer(max_length=MAX_HISTORY)
            runner.message_hub.log_scalars[f"train/{name}"] = history

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Pass the losses on at the interval, and at the last iteration."""
        num_done = runner.iter + 1
        if num_done % self.interval == 0 or num_done == runner.max_iters:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


class ProgressHook(Hook):
    """Calls back at intervals, with how far the stage is and its loss."""

    def __init__(self, on_progress: ProgressCallback, interval: int) -> None:
        self.on_progress, self.interval = on_progress, interval

    def before_train_epoch(self, runner: Runner) -> None:
        """Call back with where the stage starts, which is not 0 where it is resumed."""
        self.on_progress(runner.iter, runner.max_iters, float("nan"))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Call back at the interval, and at the last iteration."""
        num_done = runner.iter + 1
        due = num_done % self.interval == 0 or num_done == runner.max_iters
        if due and outputs is not None:
            self.on_progress(num_done, runner.max_iters, float(outputs["loss"]))
