"""Follow a stage with hooks of mmengine, without waiting for the device.

What a hook does to a stage's end and weights is judged in :mod:`compt.training.hook_effects`.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from compt.report.progress import StageProgress
from compt.training.optim import unread_norms

MOST_SILENT = 10.0
"""Seconds of iterations after which the progress hears of one, whatever its number is."""
MAX_HISTORY = 1000
"""Values that a log keeps of what is noted every iteration."""
LOGGED = "logged"
"""Key under which a checkpoint has the last values of what is logged."""
TIMES = ("train/time", "train/data_time")
"""Of which a resumed stage begins anew, as they are of the machine."""


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
            if norms := unread_norms(runner.optim_wrapper):
                norms.note()
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what logs average over, so that a resumed stage logs what it would have."""
        if norms := unread_norms(runner.optim_wrapper):
            norms.note()
        checkpoint[LOGGED] = {
            name: [torch.as_tensor(column[-MAX_HISTORY:]).double() for column in history.data]
            for name, history in runner.message_hub.log_scalars.items()
            if name.startswith("train/") and name not in TIMES
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from there; checkpoints of older versions have none of it."""
        if norms := unread_norms(runner.optim_wrapper):
            norms.forget()
        for name, (values, counts) in checkpoint.get(LOGGED, {}).items():
            history = HistoryBuffer(values.tolist(), counts.tolist(), max_length=MAX_HISTORY)
            runner.message_hub.log_scalars[name] = history


class ProgressHook(Hook):
    """Says at intervals how far the stage is and its loss, and of every evaluation.

    Where an iteration takes seconds, it says so sooner than the interval.
    """

    def __init__(self, progress: StageProgress, interval: int) -> None:
        self.progress, self.interval = progress, interval
        self._told_at = 0.0
        self._num_told = 0
        """Evaluations that the progress knows of."""
        self._is_training = False
        """Whether it is in the loop, outside of which weights are put in to be delivered."""

    def before_train_epoch(self, runner: Runner) -> None:
        """Say where the stage starts, which is not 0 where it is resumed."""
        self._is_training, self._told_at = True, time.monotonic()
        self._tell_evaluations(runner)
        self.progress.report(runner.iter, runner.max_iters, float("nan"))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Say how far it is at the interval, and at the last iteration."""
        self._tell_evaluations(runner)
        num_done = runner.iter + 1
        due = num_done % self.interval == 0 or num_done == runner.max_iters
        now = time.monotonic()
        if (due or now - self._told_at > MOST_SILENT) and outputs is not None:
            self._told_at = now
            self.progress.report(num_done, runner.max_iters, float(outputs["loss"]))

    def before_val(self, runner: Runner) -> None:
        """Say that an evaluation begins."""
        if self._is_training:
            self.progress.evaluating()

    def after_val(self, runner: Runner) -> None:
        """Say that it is over; the loop has its metrics a little later."""
        if self._is_training:
            self.progress.evaluated(runner.train_loop.curve)

    def after_train_epoch(self, runner: Runner) -> None:
        """Say what the last evaluation has measured."""
        self._tell_evaluations(runner)
        self._is_training = False

    def _tell_evaluations(self, runner: Runner) -> None:
        curve = runner.train_loop.curve
        if len(curve) != self._num_told:
            self._num_told = len(curve)
            self.progress.evaluated(curve)
