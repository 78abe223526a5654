"""Held-out metrics, and the curve that they draw over a stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MetricValue:
    """A held-out metric's value, and what guessing would reach."""

    value: float | None
    """None where it is not finite, which JSON cannot hold."""
    chance: float | None = None
    """None where guessing has no meaning."""
    higher_is_better: bool | None = True
    """None where it is not known."""
    unit: str | None = None
    """As ``Metric.unit``; None in records of older versions."""

    @property
    def sign(self) -> int:
        """1 where higher values are better or that is not known, -1 where lower ones are."""
        return -1 if self.higher_is_better is False else 1

    def reached_by(self, value: float | None) -> bool:
        """Return whether another value of the metric is as good as this one, or better."""
        if value is None or self.value is None or self.higher_is_better is None:
            return False
        return self.sign * value >= self.sign * self.value

    @classmethod
    def from_json(cls, content: Any) -> MetricValue:
        """Read a metric from JSON types, of which curves may hold the number alone."""
        if not isinstance(content, Mapping):
            return cls(_finite(content))
        return cls(
            _finite(content["value"]),
            _finite(content.get("chance")),
            _side(content.get("higher_is_better", True)),
            content.get("unit"),
        )


Metrics = Mapping[str, MetricValue]
"""By 'split/name'."""


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation, with what the stage had cost until then, growth included."""

    iteration: int
    samples: int
    flops: float
    seconds: float
    metrics: Metrics

    def value(self, metric: str) -> float | None:
        """Return a metric's value, None where it is not measured or not finite."""
        measured = self.metrics.get(metric)
        return None if measured is None else measured.value

    def to_json(self) -> dict[str, Any]:
        """Return the point as JSON types."""
        content = as_json(self)
        return {"iter": content.pop("iteration"), **content}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CurvePoint:
        """Read a point from JSON types."""
        return cls(
            iteration=int(content["iter"]),
            samples=int(content["samples"]),
            flops=float(content["flops"]),
            seconds=float(content["seconds"]),
            metrics=read_metrics(content["metrics"]),
        )


def as_json(record: Any) -> dict[str, Any]:
    """Return a record with metrics as JSON types, without units that are not known."""
    return asdict(
        record, dict_factory=lambda items: {k: v for k, v in items if (k, v) != ("unit", None)}
    )


def read_metrics(content: Mapping[str, Any]) -> Metrics:
    """Read metrics from JSON types, by 'split/name'."""
    return {name: MetricValue.from_json(metric) for name, metric in content.items()}


def main_metric(metrics: Metrics) -> str | None:
    """Return the name of the first metric that can be compared, None where there is none."""
    known = (name for name, value in metrics.items() if value.higher_is_better is not None)
    return next(known, None)


def _side(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
