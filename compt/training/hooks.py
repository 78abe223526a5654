"""mmengine hooks of a stage: logging that does not wait for the device, and progress for whoever
watches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

HISTORY = 1000
Report = Callable[[int, int, float], None]


@HOOKS.register_module(name="ComptRuntimeInfoHook")
class IntervalRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, reading losses from the device only every ``interval``
    iterations.
    """

    def __init__(self, interval: int = 10) -> None:
        super().__init__()
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Keep short histories of what is noted every iteration: each note copies all of its
        history.
        """
        super().before_train(runner)
        for name in (*runner.optim_wrapper.get_lr(), "time", "data_time"):
            runner.message_hub.log_scalars[f"train/{name}"] = HistoryBuffer(max_length=HISTORY)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Pass the losses on at the interval."""
        if (runner.iter + 1) % self.interval == 0 or runner.iter + 1 == runner.max_iters:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


class ProgressHook(Hook):
    """Tell a callback (iteration, iterations, loss) at intervals."""

    def __init__(self, report: Report, interval: int) -> None:
        self.report, self.interval = report, interval

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell where a resumed stage starts."""
        self.report(runner.iter, runner.max_iters, float("nan"))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Report every interval, and the last iteration."""
        done = runner.iter + 1
        if outputs is not None and (done % self.interval == 0 or done == runner.max_iters):
            self.report(done, runner.max_iters, float(outputs["loss"]))
