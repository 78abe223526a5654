"""The training loop of a stage, as an mmengine loop by iteration, resumable to the bit."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from compt.config.options import GuardOptions
from compt.config.stopping import stopping_rule
from compt.errors import DivergedError, TrainingError
from compt.files import CHECKPOINTS, PLATEAU, PLATEAU_OPTIMIZER
from compt.interfaces import Batch
from compt.random_state import restore_random_state
from compt.training.checkpoint import (
    last_saved_iteration,
    load_checkpoint,
    restore_runner,
    runner_state,
)
from compt.training.checkpoint_writer import CheckpointWriter
from compt.training.distributed import largest_of_all, mean_over_processes
from compt.training.evaluation import EvalLoop
from compt.training.guard import LossMonitor, Rollback, unfit_weights
from compt.training.hook_effects import averages, checksums, replay, stop_reason
from compt.training.known_samples import known_samples, remember_samples
from compt.training.loader import (
    end_workers,
    loader_options,
    open_dataset,
    order_summary,
    train_loader,
)
from compt.training.optim import named_state
from compt.training.sharding import is_sharded
from compt.training.signals import StopSignals, exit_code
from compt.training.stage import stage_model
from compt.weights import hand_over_weights, save_tensors

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
        asynchronous: whether checkpoints are written beside training.
        check_interval: iterations between two looks at the losses.
        stop: config of the rule that may end the stage after an evaluation; see
            :mod:`compt.config.stopping`.
        plateau_iter: iterations after which to keep the weights that the next member grows from,
            and what the optimizer remembers there.
        guard: what to do about losses that leap or are not finite, as
            :class:`compt.config.options.GuardOptions`.
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
        asynchronous: bool = False,
        check_interval: int = 1,
        stop: Mapping[str, Any] | None = None,
        guard: Mapping[str, Any] | None = None,
        plateau_iter: int | None = None,
    ) -> None:
        self._runner = runner
        self._max_iters, self._iter = max_iters, 0
        self.eval_iters = {*eval_iters, max_iters}
        self.save_interval, self.check_interval = save_interval, check_interval
        self.options = dict(dataloader)
        self.stage = stage_model(runner)
        self.dataset = open_dataset(self.stage.paradigm, self.options, "train")
        self.stage.open_cache(self.dataset)
        self.curve: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.data_seconds, self.checkpoint_seconds = 0.0, 0.0
        """For which this process has waited for batches, and for checkpoints."""
        self.stopping_rule, self.stopped = stopping_rule(stop), ""
        self.plateau_iter = plateau_iter
        self.guard = GuardOptions(**(guard or {}))
        self.losses = LossMonitor(self.guard.spike, self.guard.window)
        self.rollbacks: list[Rollback] = []
        self.raw_metrics: dict[str, Any] = {}
        """Of the trained weights at the end, where an average of them is delivered."""
        self.stop_training = False
        """Whether a hook asks for the end of the stage, as EarlyStoppingHook does."""
        self.writer = CheckpointWriter(
            self.folder, keep=keep, asynchronous=asynchronous, warn=runner.logger.warning
        )
        self._measured: list[float] = []
        self._save_pending = False
        self.dataloader = self._loader()  # hooks look at its data set before the loop runs
        self._batches: Iterator[Batch] = iter(())

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
        elif self.guard.retries and self._max_iters:
            self._save()  # what to return to before the first checkpoint is due
        # A batch follows from the seed and its iteration: the loader of an earlier iteration
        # would give a resumed stage the batches that it has been trained on.
        self.dataloader = self._loader()
        if summary := order_summary(self.dataloader, self._max_iters):
            self.runner.logger.info(summary)
        self.runner.model.train()
        with StopSignals() as signals, self.writer:
            if self._iter < self._max_iters:
                self._batches = iter(self.dataloader)
            if state is not None:
                # After all that was set up: hooks, the data and the start of its workers may
                # draw random numbers that the uninterrupted stage did not draw here.
                restore_random_state(state["random"])
            self.runner.call_hook("before_train_epoch")
            while self._iter < self._max_iters:
                start = time.perf_counter()
                self._step(self._next_batch())
                self.seconds += time.perf_counter() - start
                self._after_step(signals)
            self._end_workers()
            if not self._max_iters and self.runner.val_loop is not None:
                self._evaluate()  # a member that is given is measured all the same
            self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        self._measure_again()
        if self.curve and averages(self.runner.hooks):
            self.raw_metrics = self.runner.val_loop.measure()
        model: torch.nn.Module = self.runner.model
        return model

    @property
    def repeated(self) -> int:
        """Iterations that were lost by rolling back, whose batches are left out."""
        return sum(rollback.at - rollback.to for rollback in self.rollbacks)

    def _loader(self) -> DataLoader[Any]:
        """Build the loader of the batches from here on."""
        dataset, collate = self.stage.samples(self.dataset)
        return train_loader(
            dataset,
            collate,
            seed=self.stage.seed,
            start=self._iter + self.repeated,
            rank=self.runner.rank,
            world_size=self.runner.world_size,
            **loader_options(self.options),
        )

    def _end_workers(self) -> None:
        self._batches = iter(())
        end_workers(self.dataloader)

    def _next_batch(self) -> Batch:
        start = time.perf_counter()
        batch = next(self._batches)
        self.data_seconds += time.perf_counter() - start
        return batch

    def _step(self, batch: Batch) -> None:
        self.stage.begin(self._iter, self._max_iters, batch)
        self.stage.frozen.at(self._iter, self.stage.student)
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=batch)
        outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        # The optimizer's own count: with accumulation not every iteration is a step of it, and
        # the last is one however few gradients were summed up.
        if self.runner.optim_wrapper.should_update():
            self.stage.after_step()
        outputs = mean_over_processes(outputs)
        self.losses.add(self.stage.judged(outputs))
        self.runner.call_hook(
            "after_train_iter", batch_idx=self._iter, data_batch=batch, outputs=outputs
        )
        self._iter += 1

    def _after_step(self, signals: StopSignals) -> None:
        """Check the loss, evaluate, save and stop, whatever is due."""
        self.writer.check()
        if self.stop_training:
            self._end(stop_reason(self.runner))
        is_evaluated = self._iter in self.eval_iters or self._iter == self._max_iters
        evaluation_due = is_evaluated and self.runner.val_loop is not None
        check_due = evaluation_due or self._check_due(signals)
        if check_due and self._rolled_back(check_weights=evaluation_due or self._save_may_be_due()):
            return
        # Before saving: a checkpoint holds the evaluation of its own iteration, which a
        # resumed stage does not make again.
        if evaluation_due:
            self._evaluate()
            self._apply_stopping_rule()
        # Before saving too: a stage resumed from a later checkpoint does not come here again.
        if self._at_plateau():
            self._keep_plateau()
        # After evaluating, which may take minutes: the last iteration has no later check.
        (stop_signal,) = largest_of_all(signals.first) if check_due else (0,)
        if self._save_due(stop_requested=stop_signal != 0):
            self._save()
            if stop_signal:
                self.writer.wait()
                raise self._stopped_by(stop_signal)

    def _check_due(self, signals: StopSignals) -> bool:
        """Whether to look at the loss and for signals now, at the latest before saving.

        All processes have to agree on both: one that stopped or failed alone would leave the
        others waiting for its gradients for ever. They also have to answer this alike, so a
        signal, of which only one may know, is no reason where there are several.
        """
        return (
            self._save_may_be_due()
            or self._iter % self.check_interval == 0
            or (self.runner.world_size == 1 and bool(signals.first))
        )

    def _save_may_be_due(self) -> bool:
        is_end = self._iter in (0, self._max_iters) or self._at_plateau()
        return self._save_pending or is_end or self._iter % self.save_interval == 0

    def _at_plateau(self) -> bool:
        """Whether the weights are those that the next member grows from.

        A stage that its rule ends before its decay has them at its end.
        """
        last = self.plateau_iter
        return last is not None and self._iter == min(last, self._max_iters)

    def _keep_plateau(self) -> None:
        """Write the weights that the next member grows from, and the optimizer's state."""
        optimizer = self.runner.optim_wrapper.optimizer
        memory = self.stage.whole(named_state(self.stage.student, optimizer))
        student = self.stage.whole_student()
        if self.runner.rank != 0 or student is None:
            return
        folder = Path(self.runner.work_dir)
        save_tensors(memory, folder / PLATEAU_OPTIMIZER)
        hand_over_weights(student, folder / PLATEAU)

    def _rolled_back(self, *, check_weights: bool) -> bool:
        """Look at the losses, and return to the last checkpoint where one is at fault.

        Returns:
            Whether the stage has returned there.

        Raises:
            DivergedError: a loss or a weight is not finite, and no retry is left.
        """
        if self.stage.teacher is not None:
            self.stage.teacher.check()
        fault = self.losses.look(self._iter)
        if check_weights and (fault is None or fault.is_spike):
            fault = unfit_weights(self.stage) or fault
        if fault is None:
            return False
        self.writer.wait()
        barrier()  # one process may have written what all of them read
        retry = len(self.rollbacks) < self.guard.retries
        state = load_checkpoint(self.folder, self.runner.logger.warning) if retry else None
        if state is not None:
            self._roll_back(state, fault.text)
            return True
        if not fault.is_spike:
            raise self._diverged(fault.text)
        self.runner.logger.warning(fault.text)
        return False

    def _roll_back(self, state: Mapping[str, Any], reason: str) -> None:
        """Go back to a checkpoint, and leave out the batches since."""
        fault_at, rollbacks = self._iter, self.rollbacks
        spikes, num_spikes, seconds = self.losses.spikes, self.losses.num_spikes, self.seconds
        teacher = self.teacher_usage()
        self._resume(state)
        # What was seen and spent stays, though the weights know nothing of it.
        self.losses.spikes, self.losses.num_spikes, self.seconds = spikes, num_spikes, seconds
        self._resume_teacher(teacher)
        rollback = Rollback(fault_at, self._iter, reason)
        self.rollbacks, self._save_pending = [*rollbacks, rollback], False
        self.runner.logger.warning(
            f"{reason}: back to the checkpoint of iteration {rollback.to}, "
            f"{rollback.at - rollback.to} batches are left out "
            f"(retry {len(self.rollbacks)} of {self.guard.retries})."
        )
        self.runner.optim_wrapper.zero_grad()
        restore_random_state(state["random"])
        barrier()  # every process has read the checkpoint before it is written anew
        self._save()  # so that a resumed stage leaves out the same batches
        self._end_workers()
        self.dataloader = self._loader()
        self._batches = iter(self.dataloader)
        self.runner.model.train()

    def _diverged(self, fault: str) -> DivergedError:
        saved = last_saved_iteration(self.folder)
        note = "" if saved is None else f" The checkpoint of iteration {saved} is kept."
        name = Path(self.runner.work_dir).name.partition("_")[2]
        retries = f" after {len(self.rollbacks)} retries" if self.rollbacks else ""
        return DivergedError(
            f"{fault}{retries}, noticed after iteration {self._iter} of {self._max_iters}.",
            where=str(self.runner.work_dir),
            do="Lower the learning rate, lengthen the warm-up or clip gradients "
            f"(optim_wrapper.clip_grad), and begin the stage anew: --resume --from-stage {name}. "
            "Or skip the batches since the last checkpoint: guard=dict(retries=3) and --resume."
            f"{note}",
        )

    def _evaluate(self) -> None:
        """Add a point to the curve."""
        metrics = self.runner.val_loop.run()
        cost = {"seconds": self.seconds, "repeated": self.repeated, **self.teacher_usage()}
        self.curve.append({"iter": self._iter, **cost, "metrics": metrics})
        self._measured = checksums(self.stage.student.state_dict().values())

    def _measure_again(self) -> None:
        """Repeat the last evaluation where hooks have changed the weights since."""
        if self._measured and checksums(self.stage.student.state_dict().values()) != self._measured:
            self.runner.logger.info("Hooks have changed the weights: they are measured again.")
            self.curve.pop()
            self._evaluate()

    def _apply_stopping_rule(self) -> None:
        """End the stage here if its rule, or a hook, says so."""
        if self.stopping_rule is not None and self.curve:
            self._end(self.stopping_rule.reached(self.curve))
        if self.stop_training:
            self._end(stop_reason(self.runner))

    def _end(self, reason: str) -> None:
        """End the stage here, if there is a reason."""
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
        error = TrainingError(
            f"Stopped by {signal.Signals(number).name} after iteration "
            f"{self._iter} of {self._max_iters}.",
            where=str(self.runner.work_dir),
            do="Run the same command with --resume to go on from there.",
        )
        error.exit_code = exit_code(number)
        return error

    def _save(self) -> None:
        start = time.perf_counter()
        self._hand_to_writer()
        self.checkpoint_seconds += time.perf_counter() - start

    def _hand_to_writer(self) -> None:
        self.stage.warn_of_differences()
        if self.runner.rank != 0 and not is_sharded(self.stage):
            return
        progress = {
            "iter": self._iter,
            "seconds": self.seconds,
            "curve": self.curve,
            "losses": self.losses.state_dict(),
            "known_samples": [known.clone() for known in known_samples(self.dataset)],
            "known_held_out": self._known_held_out(),
            "rollbacks": [asdict(rollback) for rollback in self.rollbacks],
            "teacher": self.teacher_usage(),
        }
        state = {**progress, **runner_state(self.runner)}
        self.writer.save(state, self.stage, self._iter)

    def teacher_usage(self) -> dict[str, Any]:
        """Return what the teacher took so far, as records have it, nothing without one."""
        return {} if self.stage.teacher is None else self.stage.teacher.usage()

    def _resume_teacher(self, usage: Mapping[str, Any]) -> None:
        if self.stage.teacher is not None:
            self.stage.teacher.resume(usage)

    def _known_held_out(self) -> dict[str, list[torch.Tensor]]:
        """Return what is known of the samples of each validation split that was opened."""
        splits = getattr(self.runner.val_loop, "datasets", {}).items()
        return {split: [known.clone() for known in known_samples(data)] for split, data in splits}

    def _resume(self, state: Mapping[str, Any]) -> None:
        self._iter, self.seconds, self.curve = state["iter"], state["seconds"], state["curve"]
        if "losses" in state:  # not in checkpoints of older versions
            self.losses.load_state_dict(state["losses"])
            self.rollbacks = [Rollback(**rollback) for rollback in state["rollbacks"]]
        self._resume_teacher(state.get("teacher", {}))  # not in checkpoints of older versions
        remember_samples(self.dataset, state.get("known_samples", ()))
        if self.runner.val_loop is not None:
            # Resumed at its end, a stage does not evaluate again, and has them in its record.
            self.runner.val_loop.remember(state.get("known_held_out", {}))
        restore_runner(self.runner, state)
        replay(self.runner, self.curve)
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter, self._max_iters
        )
        self.runner.logger.info(f"Resumed at iteration {self._iter} of {self._max_iters}.")
        # Interrupted between its last checkpoint and its manifest, a stage that its rule had
        # ended is not to go on.
        if self.curve and self.curve[-1]["iter"] == self._iter:
            self._measured = checksums(self.stage.student.state_dict().values())
            self._apply_stopping_rule()
