"""mmengine hooks of a stage: logging that does not wait for the device, and progress for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

Report = Callable[[int, int, float], None]


@HOOKS.register_module(name="ComptRuntimeInfoHook")
class IntervalRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, reading losses from the device only every ``interval`` iterations."""

    def __init__(self, interval: int = 10) -> None:
        super().__init__()
        self.interval = interval

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
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
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Report every interval, and the last iteration."""
        done = runner.iter + 1
        if outputs is not None and (done % self.interval == 0 or done == runner.max_iters):
            self.report(done, runner.max_iters, float(outputs["loss"]))
