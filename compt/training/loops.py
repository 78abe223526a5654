"""The training and evaluation loops of a stage, as mmengine loops: by iteration, resumable to the
bit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import BaseLoop, Runner, set_random_seed
from torch.utils.data import DataLoader, Dataset

from compt.config.stopping import rule_of
from compt.errors import DivergedError, TrainingError
from compt.files import CHECKPOINTS
from compt.interfaces import Batch, Metric, Paradigm
from compt.random_state import random_state, restore_random_state
from compt.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from compt.training.loader import eval_loader, loader_options, train_loader
from compt.training.stage import StageModel


def stage_model(runner: Runner) -> StageModel:
    """The StageModel of a runner, without its distributed wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def open_dataset(paradigm: Paradigm, options: Mapping[str, Any], split: str) -> Dataset:
    """Build a data set: an mmengine one where the config names it, else the paradigm's own."""
    dataset = options.get("dataset")
    return DATASETS.build(dataset) if dataset is not None else paradigm.build_dataset(split)


def held_out(paradigm: Paradigm, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits to measure: the paradigm's own, or 'val' where an mmengine data set takes their
    place.
    """
    return ("val",) if options.get("dataset") is not None else tuple(paradigm.splits)


@LOOPS.register_module(name="ComptTrainLoop")
class TrainLoop(BaseLoop):
    """Train for ``max_iters`` iterations, continuing from the stage's newest checkpoint if there is
    one.

    Args:
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
        self.rule, self.stopped = rule_of(stop), ""
        self._finite: bool | torch.Tensor = True
        self._due = False
        self.dataloader = self._loader(0)

    def _loader(self, start: int) -> DataLoader:
        return train_loader(
            self.dataset,
            self.stage.paradigm.collate,
            seed=self.stage.seed,
            start=start,
            rank=self.runner.rank,
            world_size=self.runner.world_size,
            **loader_options(self.options),
        )

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
            TrainingError: the loss is no longer finite, a checkpoint cannot be written, or a signal
                asked to stop.
        """
        self.runner.call_hook("before_train")
        state = load_checkpoint(self.folder, self.runner.logger.warning)
        if state is not None:
            self._restore(state)
        self.dataloader = self._loader(self._iter)
        self.runner.model.train()
        with _stop_signals() as stop:
            batches = iter(self.dataloader) if self._iter < self._max_iters else iter(())
            if state is not None:
                restore_random_state(state["random"])
            self.runner.call_hook("before_train_epoch")
            while self._iter < self._max_iters:
                start = time.perf_counter()
                self._step(next(batches))
                self.seconds += time.perf_counter() - start
                self._after_step(stop)
            if not self._max_iters and self.runner.val_loop is not None:
                self.curve.append(
                    {"iter": 0, "seconds": 0.0, "metrics": self.runner.val_loop.run()}
                )
            self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _step(self, batch: Batch) -> None:
        self.stage.iteration, self.stage.max_iters = self._iter, self._max_iters
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=batch)
        outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        with torch.no_grad():
            self.stage.paradigm.after_step(self.stage.student)
        self._finite = self._finite & torch.isfinite(outputs["loss"])
        self.runner.call_hook(
            "after_train_iter", batch_idx=self._iter, data_batch=batch, outputs=outputs
        )
        self._iter += 1

    def _after_step(self, stop: list[int]) -> None:
        """Check the loss, evaluate, save and stop, whatever is due."""
        evaluate = self._iter in self.eval_iters and self.runner.val_loop is not None
        alone = self.runner.world_size == 1
        due = (
            evaluate
            or self._due
            or self._iter == self._max_iters
            or self._iter % self.save_interval == 0
        )
        if due or (alone and stop) or self._iter % self.check_interval == 0:
            stop = stop if alone else self._agree(stop)
            self._check_finite()
        elif not alone:
            stop = []  # until the next check, where all processes learn of it
        if evaluate:
            metrics = self.runner.val_loop.run()
            self.curve.append({"iter": self._iter, "seconds": self.seconds, "metrics": metrics})
            self._judge()
        save = self._save_due(bool(stop))
        if save:
            self._save()
        if stop and save:
            raise TrainingError(
                f"Stopped by {signal.Signals(stop[0]).name} after iteration {self._iter} of {self._max_iters}.",
                where=str(self.runner.work_dir),
                do="Run the same command with --resume to go on from there.",
            )

    def _judge(self) -> None:
        """End the stage here if its rule says so."""
        why = self.rule.reached(self.curve) if self.rule is not None and self.curve else ""
        if why and self._iter < self._max_iters:
            self.stopped = f"{why}: stopped after {self._iter} of {self._max_iters} iterations"
            self.runner.logger.info(self.stopped)
            self._max_iters = self._iter

    def _agree(self, stop: list[int]) -> list[int]:
        """The signal and the bad loss of any process, for all: one that went on alone would wait
        for the others.
        """
        told = torch.tensor([max(stop, default=0), int(not self._finite)])
        all_reduce(told, op="max")
        number, bad = told.tolist()
        self._finite = not bad
        return [number] if number else []

    def _save_due(self, stop: bool) -> bool:
        """Whether to save now: what is due waits for accumulated gradients, which no checkpoint
        holds.
        """
        self._due = self._due or stop or self._iter % self.save_interval == 0
        whole = self._iter % self.runner.optim_wrapper._accumulative_counts == 0
        now = self._iter == self._max_iters or (self._due and whole)
        self._due = self._due and not now
        return now

    def _check_finite(self) -> None:
        if not self._finite:
            kept = [int(path.stem.removeprefix("iter_")) for path in checkpoints(self.folder)[:1]]
            raise DivergedError(
                f"The loss is not finite (NaN or infinite) at iteration {self._iter} of {self._max_iters}.",
                where=str(self.runner.work_dir),
                do="Lower the learning rate, lengthen the warm-up, or clip gradients (optim_wrapper.clip_grad)."
                + (f" The checkpoint of iteration {kept[0]} is kept." if kept else ""),
            )

    def _save(self) -> None:
        if self.runner.rank == 0:
            save_checkpoint(self._state(), self.folder, self._iter, keep=self.keep)

    def _state(self) -> dict[str, Any]:
        schedulers = self.runner.param_schedulers or []
        return {
            "iter": self._iter,
            "seconds": self.seconds,
            "curve": self.curve,
            "model": self.stage.state_dict(),
            "optimizer": self.runner.optim_wrapper.state_dict(),
            "schedulers": [s.state_dict() for s in schedulers],
            "random": random_state(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._iter, self.seconds, self.curve = state["iter"], state["seconds"], state["curve"]
        self.stage.load_state_dict(state["model"])
        self.runner.optim_wrapper.load_state_dict(state["optimizer"])
        for scheduler, saved in zip(
            self.runner.param_schedulers or [], state["schedulers"], strict=True
        ):
            scheduler.load_state_dict(saved)
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter, self._max_iters
        )
        self.runner.logger.info(f"Resumed at iteration {self._iter} of {self._max_iters}.")
        if self.curve and self.curve[-1]["iter"] == self._iter:
            self._judge()


@LOOPS.register_module(name="ComptEvalLoop")
class EvalLoop(BaseLoop):
    """Measure the student on every held-out split, with the paradigm's metrics and, on the first,
    mmengine's.

    ``run`` returns ``{'split/metric': {'value', 'chance', 'higher_is_better'}}`` in the paradigm's
    order.
    """

    def __init__(self, runner: Runner, dataloader: Mapping[str, Any], evaluator: Any) -> None:
        self._runner = runner
        self.options = dict(dataloader)
        self.stage = stage_model(runner)
        self.evaluator = runner.build_evaluator(evaluator) if evaluator else None
        self.loaders: dict[str, DataLoader] = {}
        self.dataloader: Any = ()

    def _split_loader(self, split: str) -> DataLoader:
        if split not in self.loaders:
            dataset = open_dataset(self.stage.paradigm, self.options, split)
            self.loaders[split] = eval_loader(
                dataset, self.stage.paradigm.collate, **loader_options(self.options)
            )
        return self.loaders[split]

    @torch.no_grad()
    def run(self) -> dict[str, dict[str, Any]]:
        """Evaluate all splits; the model's mode and the random state are put back."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        found: dict[str, Metric] = {}
        state, mode = random_state(), self.runner.model.training
        self.runner.model.eval()
        for i, split in enumerate(held_out(self.stage.paradigm, self.options)):
            set_random_seed(self.stage.seed)  # what a library draws is the same at every evaluation
            self.dataloader = self._split_loader(split)
            batches = self._prepared(self.dataloader, measure=i == 0)
            with self.stage.context():
                metrics = self.stage.paradigm.metrics(self.stage.student, split, batches)
            found |= {f"{split}/{name}": metric for name, metric in metrics.items()}
            if i == 0 and self.evaluator is not None:
                more = self.evaluator.evaluate(len(self.dataloader.dataset))  # type: ignore[arg-type]
                found |= {f"{split}/{name}": Metric(float(value)) for name, value in more.items()}
        self.runner.model.train(mode)
        restore_random_state(state)
        self.runner.call_hook("after_val_epoch", metrics={k: m.value for k, m in found.items()})
        self.runner.call_hook("after_val")
        return {
            k: {"value": m.value, "chance": m.chance, "higher_is_better": m.higher_is_better}
            for k, m in found.items()
        }

    def _prepared(self, loader: DataLoader, *, measure: bool) -> Iterator[Batch]:
        """Yield batches on the device, prepared, and show them to mmengine's evaluator on the
        way.
        """
        generator = torch.Generator(next(self.stage.student.parameters()).device).manual_seed(
            self.stage.seed
        )
        for index, raw in enumerate(loader):
            self.runner.call_hook("before_val_iter", batch_idx=index, data_batch=raw)
            batch = self.stage.paradigm.prepare(
                self.stage.data_preprocessor(raw, False), generator=generator
            )
            if measure and self.evaluator is not None:
                outputs = self.stage.paradigm.forward(self.stage.student, batch)
                self.evaluator.process(data_samples=[dict(outputs)], data_batch=batch)
            yield batch
            self.runner.call_hook("after_val_iter", batch_idx=index, data_batch=raw, outputs=None)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second SIGINT
    interrupts at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: Any) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
