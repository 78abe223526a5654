"""The evaluation loop of a stage, as an mmengine loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import BaseLoop, Runner, set_random_seed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compt.config.keys import listed
from compt.errors import ConfigError, PluginError, TrainingError, did_you_mean
from compt.interfaces import Batch, Metric, Paradigm, accepted
from compt.random_state import random_state, restore_random_state
from compt.training.evaluators import DirectedEvaluator, build_evaluator
from compt.training.hook_effects import check_watched, checksums, watchers
from compt.training.hook_state import is_followed
from compt.training.known_samples import remember_samples
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
        max_batches: of a split to look at, None for all.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        evaluator: Any,
        *,
        max_batches: int | None = None,
    ) -> None:
        self._runner, self.max_batches = runner, max_batches
        self.options = dict(dataloader)
        self.stage = stage_model(runner)
        self.evaluators = [build_evaluator(config) for config in listed(evaluator)]
        self.datasets: dict[str, Dataset[Any]] = {}
        self.loaders: dict[str, DataLoader[Any]] = {}
        self.references: dict[str, DataLoader[Any]] = {}
        self.dataloader: Any = ()

    @torch.no_grad()
    def run(self) -> dict[str, dict[str, Any]]:
        """Evaluate every split, with the weights that hooks put in.

        Returns:
            ``{'split/metric': {'value', 'chance', 'higher_is_better', 'unit'}}``, in the
            paradigm's order.
        """
        trained = checksums(self.stage.student.parameters())
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        metrics = self._metrics()
        measured_json = {name: metric.to_json() for name, metric in metrics.items()}
        for watcher in watchers(self.runner.hooks, self.runner.param_schedulers or ()):
            check_watched(watcher, measured_json)
        values = {name: metric.value for name, metric in metrics.items()}
        self.runner.call_hook("after_val_epoch", metrics=values)
        self.runner.call_hook("after_val")
        if checksums(self.stage.student.parameters()) != trained:
            raise TrainingError(
                "After the evaluation the weights are others than before.",
                do="A hook that puts weights in to be measured has to put the trained ones back; "
                "one that changes weights can do so in after_train_iter.",
            )
        return measured_json

    def measure(self) -> dict[str, dict[str, Any]]:
        """Evaluate every split with the trained weights, which no hook replaces."""
        return {name: metric.to_json() for name, metric in self._metrics().items()}

    def remember(self, known: Mapping[str, Iterable[Tensor]]) -> None:
        """Open every split, and add what an interrupted run knew of its samples."""
        for split in validation_splits(self.stage.paradigm, self.options):
            self._split_loader(split)
            remember_samples(self.datasets[split], known.get(split, ()))

    @torch.no_grad()
    def _metrics(self) -> dict[str, Metric]:
        """Measure every split, and put the model's mode and the random state back."""
        metrics: dict[str, Metric] = {}
        state, was_training = random_state(), self.runner.model.training
        self.runner.model.eval()
        splits = validation_splits(self.stage.paradigm, self.options)
        for index, split in enumerate(splits):
            evaluators = self.evaluators if index == 0 else []
            measured = self.stage.within(partial(self._measure, split, evaluators))
            metrics |= {f"{split}/{name}": metric for name, metric in measured.items()}
        self.runner.model.train(was_training)
        restore_random_state(state)
        return metrics

    def _measure(self, split: str, evaluators: list[DirectedEvaluator]) -> dict[str, Metric]:
        """Measure one split, the paradigm's metrics first.

        Raises:
            ConfigError: two metrics have one name.
        """
        # What a library draws has to be the same at every evaluation, or two of them could
        # not be compared: a split draws the same whichever was measured before it.
        set_random_seed(self.stage.seed)
        self.dataloader = loader = self._split_loader(split)
        for evaluator in evaluators:
            evaluator.describe(self.datasets[split])
        batches = self._prepared(loader, evaluators)
        measure = self.stage.paradigm.metrics
        arguments = accepted(measure, batches_of=self._batches_of)
        with self.stage.context():
            metrics = dict(measure(self.stage.student, split, batches, **arguments))
            for _ in batches if evaluators else ():
                pass  # a paradigm need not look at all of them
        for evaluator in evaluators:
            values = evaluator.evaluate(len(loader.dataset))  # type: ignore[arg-type]
            if twice := metrics.keys() & values.keys():
                raise ConfigError(
                    f"Two metrics have the name '{min(twice)}'.",
                    where="val_evaluator",
                    do="Give one a prefix, dict(type=..., prefix='...').",
                )
            metrics |= values
        return metrics

    def _split_loader(self, split: str) -> DataLoader[Any]:
        if split not in self.loaders:
            self.datasets[split] = open_dataset(self.stage.paradigm, self.options, split)
            self.loaders[split] = self._loader(self.datasets[split])
        return self.loaders[split]

    def _loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        samples, collate = self.stage.samples(dataset)
        return eval_loader(samples, collate, **loader_options(self.options))

    def _batches_of(self, split: str) -> Iterator[Batch]:
        """Return the prepared batches of a split that metrics compare with.

        Raises:
            PluginError: there is no such split.
        """
        paradigm = self.stage.paradigm
        splits = ("train", *validation_splits(paradigm, self.options))
        if split not in splits:
            raise PluginError(
                f"{type(paradigm).__name__}.metrics() asks for the batches of the split '{split}'."
                f"{did_you_mean(split, splits)}",
                do=f"Splits: {', '.join(splits)}.",
            )
        if split not in self.references:
            options = self.runner.train_loop.options if split == "train" else self.options
            named = options.get("dataset")
            dataset = paradigm.build_reference(split) if named is None else DATASETS.build(named)
            self.references[split] = self._loader(dataset)
        generator = self._generator()
        return (self._ready(raw, generator) for raw in self.references[split])

    def _generator(self) -> torch.Generator:
        """Return what preparing draws from, which begins anew with every split."""
        device = next(self.stage.student.parameters()).device
        return torch.Generator(device).manual_seed(self.stage.seed)

    def _ready(self, raw: Batch, generator: torch.Generator) -> Batch:
        batch = self.stage.data_preprocessor(raw, False)
        return self.stage.prepare(batch, generator, training=False)

    def _prepared(
        self, loader: DataLoader[Any], evaluators: list[DirectedEvaluator]
    ) -> Iterator[Batch]:
        """Yield prepared batches on the device, each after mmengine's metrics have seen it."""
        paradigm, student = self.stage.paradigm, self.stage.student
        generator = self._generator()
        hooks_look = any(map(_looks_at_outputs, self.runner.hooks))
        for index, raw in enumerate(islice(loader, self.max_batches)):
            self.runner.call_hook("before_val_iter", batch_idx=index, data_batch=raw)
            batch = self._ready(raw, generator)
            looked_at = evaluators or hooks_look
            outputs = [dict(paradigm.forward(student, batch))] if looked_at else []
            for evaluator in evaluators:
                evaluator.process(outputs, batch)
            yield batch
            self.runner.call_hook(
                "after_val_iter", batch_idx=index, data_batch=raw, outputs=outputs or None
            )


def _looks_at_outputs(hook: Hook) -> bool:
    """Tell whether a hook may want the outputs of a batch, as mmengine's own do not.

    Those of its libraries that draw them have a switch ``enable``, which bases leave off.
    """
    kind = type(hook)
    is_called = (kind.after_val_iter, kind._after_iter) != (Hook.after_val_iter, Hook._after_iter)
    return is_called and not is_followed(hook) and bool(getattr(hook, "enable", True))
