"""The evaluation loop of a stage, as an mmengine loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, Runner, set_random_seed
from torch.utils.data import DataLoader

from compt.interfaces import Batch, Metric, Paradigm
from compt.random_state import random_state, restore_random_state
from compt.training.loader import eval_loader, loader_options, open_dataset
from compt.training.stage import stage_model


def validation_splits(paradigm: Paradigm, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the splits to measure, the paradigm's own by default.

    An mmengine data set in the dataloader's options takes their place, as the split 'val'.
    """
    return ("val",) if options.get("dataset") is not None else tuple(paradigm.splits)


@LOOPS.register_module(name="ComptEvalLoop")
class EvalLoop(BaseLoop):
    """Measures the student on every validation split.

    With the paradigm's metrics and, on the first split, mmengine's.

    Args:
        runner: the stage's Runner.
        dataloader: ``batch_size``, ``num_workers`` and other options of torch's DataLoader;
            ``dataset`` for an mmengine data set in place of the paradigm's.
        evaluator: config of mmengine's metrics, empty for none.
    """

    def __init__(self, runner: Runner, dataloader: Mapping[str, Any], evaluator: Any) -> None:
        self._runner = runner
        self.options = dict(dataloader)
        self.stage = stage_model(runner)
        self.evaluator = runner.build_evaluator(evaluator) if evaluator else None
        self.loaders: dict[str, DataLoader[Any]] = {}
        self.dataloader: Any = ()

    @torch.no_grad()
    def run(self) -> dict[str, dict[str, Any]]:
        """Evaluate every split, and put the model's mode and the random state back.

        Returns:
            ``{'split/metric': {'value', 'chance', 'higher_is_better', 'unit'}}``, in the
            paradigm's order.
        """
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        metrics: dict[str, Metric] = {}
        state, was_training = random_state(), self.runner.model.training
        self.runner.model.eval()
        splits = validation_splits(self.stage.paradigm, self.options)
        for index, split in enumerate(splits):
            measured = self._measure(split, with_evaluator=index == 0)
            metrics |= {f"{split}/{name}": metric for name, metric in measured.items()}
        self.runner.model.train(was_training)
        restore_random_state(state)
        values = {name: metric.value for name, metric in metrics.items()}
        self.runner.call_hook("after_val_epoch", metrics=values)
        self.runner.call_hook("after_val")
        return {name: metric.to_json() for name, metric in metrics.items()}

    def _measure(self, split: str, *, with_evaluator: bool) -> dict[str, Metric]:
        """Measure one split, the paradigm's metrics first."""
        # What a library draws has to be the same at every evaluation, or two of them could
        # not be compared: a split draws the same whichever was measured before it.
        set_random_seed(self.stage.seed)
        evaluator = self.evaluator if with_evaluator else None
        self.dataloader = loader = self._split_loader(split)
        batches = self._prepared(loader, evaluator)
        with self.stage.context():
            metrics = dict(self.stage.paradigm.metrics(self.stage.student, split, batches))
        if evaluator is not None:
            size = len(loader.dataset)  # type: ignore[arg-type]
            values = evaluator.evaluate(size)
            metrics |= {name: Metric(float(value)) for name, value in values.items()}
        return metrics

    def _split_loader(self, split: str) -> DataLoader[Any]:
        if split not in self.loaders:
            dataset = open_dataset(self.stage.paradigm, self.options, split)
            self.loaders[split] = eval_loader(
                dataset, self.stage.paradigm.collate, **loader_options(self.options)
            )
        return self.loaders[split]

    def _prepared(self, loader: DataLoader[Any], evaluator: Any) -> Iterator[Batch]:
        """Yield prepared batches on the device, each after mmengine's evaluator has seen it."""
        paradigm, student = self.stage.paradigm, self.stage.student
        device = next(student.parameters()).device
        generator = torch.Generator(device).manual_seed(self.stage.seed)
        for index, raw in enumerate(loader):
            self.runner.call_hook("before_val_iter", batch_idx=index, data_batch=raw)
            batch = self.stage.data_preprocessor(raw, False)
            batch = paradigm.prepare(batch, generator=generator)
            if evaluator is not None:
                outputs = paradigm.forward(student, batch)
                evaluator.process(data_samples=[dict(outputs)], data_batch=batch)
            yield batch
            self.runner.call_hook("after_val_iter", batch_idx=index, data_batch=raw, outputs=None)
