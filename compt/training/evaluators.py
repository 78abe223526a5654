"""Metrics of mmengine as metrics of compt, which say which side is good."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.registry import EVALUATOR, METRICS
from torch import Tensor

from compt.errors import ConfigError
from compt.interfaces import Metric
from compt.registry.loading import first_line

DIRECTION = "higher_is_better"
"""Entry of a metric's config, or attribute of its class, that says which side is good."""


def build_evaluator(config: Mapping[str, Any]) -> DirectedEvaluator:
    """Build one entry of ``val_evaluator``, a metric or an evaluator of several ``metrics``."""
    content = dict(config)
    direction = content.get(DIRECTION)
    if DIRECTION in content and not _takes_direction(content):
        del content[DIRECTION]
    if "metrics" in content:
        evaluator = EVALUATOR.build({"type": "Evaluator", **content})
    else:
        evaluator = Evaluator(content)
    return DirectedEvaluator(evaluator, direction)


def _takes_direction(config: Mapping[str, Any]) -> bool:
    """Tell whether a metric has an argument of that name, for itself."""
    kind = config.get("type")
    metric = METRICS.get(kind) if isinstance(kind, str) else kind
    return metric is not None and DIRECTION in inspect.signature(metric).parameters


class DirectedEvaluator:
    """An evaluator of mmengine that knows which side of its metrics is good.

    mmengine's metrics do not say it. Where neither the config nor the metric does, it is not known.

    Args:
        evaluator: of mmengine.
        higher_is_better: of all its metrics, or by name; None leaves it to the metrics' own
            attribute ``higher_is_better``.
    """

    def __init__(
        self, evaluator: Evaluator, higher_is_better: bool | Mapping[str, bool] | None
    ) -> None:
        self.evaluator, self.higher_is_better = evaluator, higher_is_better

    def describe(self, dataset: Any) -> None:
        """Tell the metrics what the data set says of itself, such as its classes."""
        self.evaluator.dataset_meta = getattr(dataset, "metainfo", None)

    def process(self, outputs: list[dict[str, Any]], batch: Mapping[str, Any]) -> None:
        """Let the metrics see the outputs of a batch, one dict of all samples.

        Raises:
            ConfigError: they cannot read them.
        """
        try:
            self.evaluator.process(data_samples=outputs, data_batch=batch)
        except Exception as error:  # a metric raises what it likes
            names = ", ".join(type(metric).__name__ for metric in self.evaluator.metrics)
            raise ConfigError(
                f"{names} cannot read the outputs of a batch: {first_line(error)}",
                where="val_evaluator",
                do=f"It sees what the paradigm returns ({', '.join(outputs[0])}) as one sample a "
                f"batch, and the prepared batch ({', '.join(batch)}).",
            ) from error

    def evaluate(self, size: int) -> dict[str, Metric]:
        """Return the metrics after all batches, and begin anew.

        What is no number is left out, with a warning.

        Args:
            size: samples of the split, all of which every process has seen.
        """
        metrics = {}
        for metric, name, value in self._values(size):
            if _is_number(value):
                metrics[name] = Metric(float(value), higher_is_better=self._side(metric, name))
            else:
                text = (
                    f"val_evaluator: '{name}' is a {type(value).__name__} and no number: left out."
                )
                warnings.warn(text, stacklevel=2)
        return metrics

    def _values(self, size: int) -> Iterator[tuple[Any, str, Any]]:
        """Yield metric, name and value; the metric is None where an evaluator has several."""
        members = self.evaluator.metrics
        if get_world_size() == 1:
            only = members[0] if len(members) == 1 else None
            for name, value in self.evaluator.evaluate(size).items():
                yield only, name, value
            return
        for metric in members:
            for name, value in metric.evaluate(_share(metric, size)).items():
                yield metric, name, value

    def _side(self, metric: Any, name: str) -> bool | None:
        side = self.higher_is_better
        if isinstance(side, Mapping):
            side = side.get(name, side.get(name.rpartition("/")[2]))
        if side is None:
            side = getattr(metric, DIRECTION, None)
        return side if isinstance(side, bool) else None


def _share(metric: Any, size: int) -> int:
    """Leave a metric this process's share of the results, and return how many there are in all.

    Every process has seen all samples, and mmengine puts the processes' results together, one of
    each in turn.
    """
    if not isinstance(metric, BaseMetric) or not metric.results:
        return size
    results, world_size = metric.results, get_world_size()
    num_results = len(results)
    padded = [*results, *[results[-1]] * (-num_results % world_size)]
    results[:] = padded[get_rank() :: world_size]
    return num_results


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    if isinstance(value, np.ndarray):
        return value.size == 1
    return isinstance(value, (int, float, np.number))
