"""Checks of a paradigm's metrics."""

from __future__ import annotations

from collections.abc import Mapping

from compt.interfaces import Metric
from compt.testing._shared import require
from compt.testing.paradigms.comparison import is_finite_number


def require_metrics(metrics: Mapping[str, Metric], split: str) -> None:
    """Require at least one metric of a split, and finite values of all."""
    require(
        metrics,
        f"There is no metric for the split '{split}'.",
        "Return at least one from metrics().",
    )
    for name, metric in metrics.items():
        require(
            isinstance(metric, Metric),
            f"The metric '{name}' is {metric!r}.",
            "Return compt.Metric(value, chance=..., higher_is_better=...) from metrics().",
        )
        require(
            is_finite_number(metric.value),
            f"The metric '{name}' is {metric.value!r}.",
            "Return a finite float: tensor.item(), and guard divisions by a count of 0.",
        )
        # a share that is compared with a chance in per cent would never look better than guessing
        is_share = metric.higher_is_better and 0 <= metric.value <= 1
        require(
            metric.chance is None
            or (is_finite_number(metric.chance) and (0 <= metric.chance <= 1 or not is_share)),
            f"The chance level of the metric '{name}' is {metric.chance!r}.",
            "Give Metric(chance=...) what guessing reaches, in the unit of the value, or None.",
        )


def require_equal_metrics(first: Mapping[str, Metric], second: Mapping[str, Metric]) -> None:
    """Require that two measurements give one order of the metrics, and one value of the first."""
    require(
        list(first) == list(second),
        f"Two measurements give metrics in different orders: {list(first)} and {list(second)}.",
        "Return the metrics in one order; the first of the first split is the main metric of the "
        "report.",
    )
    name = next(iter(first), "")
    require(
        not first or repr(first[name]) == repr(second[name]),
        f"Two measurements of one model give '{name}' two values.",
        "Draw nothing in metrics() and for held-out splits, or only from the global random states.",
    )
