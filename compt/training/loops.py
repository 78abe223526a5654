"""The training loop of a stage, as an mmengine loop by iteration, resumable to the bit."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from compt.config.stopping import stopping_rule
from compt.errors import DivergedError, TrainingError
from compt.files import CHECKPOINTS
from compt.interfaces import Batch
from compt.random_state import restore_random_state
from compt.training.checkpoint import (
    last_saved_iteration,
    load_checkpoint,
    restore_runner,
    runner_state,
    save_checkpoint,
)
from compt.training.distributed import largest_of_all
from compt.training.evaluation import EvalLoop
from compt.training.loader import loader_options, open_dataset, train_loader
from compt.training.signals import StopSignals
from compt.training.stage import stage_model

# The config.py of an older run names both loops, and imports only this module for them.
__all__ = ["EvalLoop", "TrainLoop"]


@LOOPS.register_module(name="ComptTrainLoop")
class TrainLoop(BaseLoop):
    """Trains for ``max_iters`` iterations, from the stage's newest checkpoint if it has one.

    Args:
        runner: the stage's Runner.
        dataloader: ``batch_size``, ``num_workers`` and other options of torch's DataLoader;
            ``dataset`` for an mmengine data set in place of the paradigm's.
        max_iters: iterations of the stage.
        eval_iters: iterations after which to evaluate; the last one always is.
        save_interval: iterations between two checkpoints.
        keep: checkpoints to keep.
        check_interval: iterations between two checks that the loss is finite.
        stop: config of the rule that may end the stage after an evaluation; see
            :mod:`compt.config.stopping`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        max_iters: int,
        *,
        eval_iters: Iterable[int] = (),
        save_interval: int = 500,
        keep: int = 2,
        check_interval: int = 1,
        stop: Mapping[str, Any] | None = None,
    ) -> None:
        self._runner = runner
        self._max_iters, self._iter = max_iters, 0
        self.eval_iters = {*eval_iters, max_iters}
        self.save_interval, self.keep, self.check_interval = save_interval, keep, check_interval
        self.options = dict(dataloader)
        self.stage = stage_model(runner)
        self.dataset = open_dataset(self.stage.paradigm, self.options, "train")
        self.curve: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.stopping_rule, self.stopped = stopping_rule(stop), ""
        # A tensor on the device after the first step: to read it every step would make the
        # device wait.
        self._is_finite: bool | torch.Tensor = True
        self._save_pending = False
        self.dataloader = self._loader(0)  # hooks look at its data set before the loop runs

    # The whole stage is one epoch to mmengine.
    max_epochs = property(lambda self: 1)
    epoch = property(lambda self: 0)
    max_iters = property(lambda self: self._max_iters)
    iter = property(lambda self: self._iter)

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return Path(self.runner.work_dir) / CHECKPOINTS

    def run(self) -> torch.nn.Module:
        """Train to the end of the stage.

        Raises:
            TrainingError: the loss is no longer finite, a checkpoint cannot be written, or a
                signal asked to stop.
        """
        self.runner.call_hook("before_train")
        state = load_checkpoint(self.folder, self.runner.logger.warning)
        if state is not None:
            self._resume(state)
        # A batch follows from the seed and its iteration: the loader of an earlier iteration
        # would give a resumed stage the batches that it has been trained on.
        self.dataloader = self._loader(self._iter)
        self.runner.model.train()
        with StopSignals() as signals:
            batches = iter(self.dataloader) if self._iter < self._max_iters else iter(())
            if state is not None:
                # After all that was set up: hooks, the data and the start of its workers may
                # draw random numbers that the uninterrupted stage did not draw here.
                restore_random_state(state["random"])
            self.runner.call_hook("before_train_epoch")
            while self._iter < self._max_iters:
                start = time.perf_counter()
                self._step(next(batches))
                self.seconds += time.perf_counter() - start
                self._after_step(signals)
            if not self._max_iters and self.runner.val_loop is not None:
                self._evaluate()  # a member that is given is measured all the same
            self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        model: torch.nn.Module = self.runner.model
        return model

    def _loader(self, start: int) -> DataLoader[Any]:
        """Build the loader of the batches from this iteration on."""
        return train_loader(
            self.dataset,
            self.stage.paradigm.collate,
            seed=self.stage.seed,
            start=start,
            rank=self.runner.rank,
            world_size=self.runner.world_size,
            **loader_options(self.options),
        )

    def _step(self, batch: Batch) -> None:
        self.stage.iteration, self.stage.max_iters = self._iter, self._max_iters
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=batch)
        outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        with torch.no_grad():
            self.stage.paradigm.after_step(self.stage.student)
        self._is_finite = self._is_finite & torch.isfinite(outputs["loss"])
        self.runner.call_hook(
            "after_train_iter", batch_idx=self._iter, data_batch=batch, outputs=outputs
        )
        self._iter += 1

    def _after_step(self, signals: StopSignals) -> None:
        """Check the loss, evaluate, save and stop, whatever is due."""
        evaluation_due = self._iter in self.eval_iters and self.runner.val_loop is not None
        check_due = evaluation_due or self._check_due(signals)
        if check_due:
            self._check_loss()
        # Before saving: a checkpoint holds the evaluation of its own iteration, which a
        # resumed stage does not make again.
        if evaluation_due:
            self._evaluate()
            self._apply_stopping_rule()
        # After evaluating, which may take minutes: the last iteration has no later check.
        (stop_signal,) = largest_of_all(signals.first) if check_due else (0,)
        if self._save_due(stop_requested=stop_signal != 0):
            self._save()
            if stop_signal:
                raise self._stopped_by(stop_signal)

    def _check_due(self, signals: StopSignals) -> bool:
        """Whether to look at the loss and for signals now, at the latest before saving.

        All processes have to agree on both: one that stopped or failed alone would leave the
        others waiting for its gradients for ever. They also have to answer this alike, so a
        signal, of which only one may know, is no reason where there are several.
        """
        return (
            self._save_pending
            or self._iter == self._max_iters
            or self._iter % self.save_interval == 0
            or self._iter % self.check_interval == 0
            or (self.runner.world_size == 1 and bool(signals.first))
        )

    def _check_loss(self) -> None:
        """Raise DivergedError if the loss of any process was not finite."""
        (has_diverged,) = largest_of_all(int(not self._is_finite))
        if not has_diverged:
            return
        saved = last_saved_iteration(self.folder)
        note = "" if saved is None else f" The checkpoint of iteration {saved} is kept."
        raise DivergedError(
            "The loss is not finite (NaN or infinite) at iteration "
            f"{self._iter} of {self._max_iters}.",
            where=str(self.runner.work_dir),
            do="Lower the learning rate, lengthen the warm-up, or clip gradients "
            f"(optim_wrapper.clip_grad).{note}",
        )

    def _evaluate(self) -> None:
        """Add a point to the curve."""
        metrics = self.runner.val_loop.run()
        self.curve.append({"iter": self._iter, "seconds": self.seconds, "metrics": metrics})

    def _apply_stopping_rule(self) -> None:
        """End the stage here if its rule says so."""
        if self.stopping_rule is None or not self.curve:
            return
        reason = self.stopping_rule.reached(self.curve)
        if reason and self._iter < self._max_iters:
            self.stopped = f"{reason}: stopped after {self._iter} of {self._max_iters} iterations"
            self.runner.logger.info(self.stopped)
            self._max_iters = self._iter

    def _save_due(self, *, stop_requested: bool) -> bool:
        """Whether to save now.

        What is due in the middle of an accumulation waits for its end: no checkpoint holds
        the gradients summed up so far, so a stage resumed from it would lose them.
        """
        interval_is_over = self._iter % self.save_interval == 0
        self._save_pending = self._save_pending or stop_requested or interval_is_over
        is_accumulating = self._iter % self.runner.optim_wrapper._accumulative_counts != 0
        due = self._iter == self._max_iters or (self._save_pending and not is_accumulating)
        self._save_pending = self._save_pending and not due
        return due

    def _stopped_by(self, number: int) -> TrainingError:
        return TrainingError(
            f"Stopped by {signal.Signals(number).name} after iteration "
            f"{self._iter} of {self._max_iters}.",
            where=str(self.runner.work_dir),
            do="Run the same command with --resume to go on from there.",
        )

    def _save(self) -> None:
        if self.runner.rank != 0:
            return
        progress = {"iter": self._iter, "seconds": self.seconds, "curve": self.curve}
        state = {**progress, **runner_state(self.runner)}
        save_checkpoint(state, self.folder, self._iter, keep=self.keep)

    def _resume(self, state: Mapping[str, Any]) -> None:
        self._iter, self.seconds, self.curve = state["iter"], state["seconds"], state["curve"]
        restore_runner(self.runner, state)
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter, self._max_iters
        )
        self.runner.logger.info(f"Resumed at iteration {self._iter} of {self._max_iters}.")
        # Interrupted between its last checkpoint and its manifest, a stage that its rule had
        # ended is not to go on.
        if self.curve and self.curve[-1]["iter"] == self._iter:
            self._apply_stopping_rule()
