"""Rules that end a stage before its budget is spent.

A metric is as good as wanted, or more compute no longer pays.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compt.config.keys import Section, key
from compt.errors import TrainingError

Curve = Sequence[Mapping[str, Any]]
"""Evaluations so far.

Each has ``iter``, and ``metrics`` by 'split/name' with ``value`` and ``higher_is_better``.
"""


@dataclass(frozen=True, kw_only=True)
class StoppingRule(Section, ABC):
    """When to stop, judged after every evaluation."""

    metric: str | None = key(None, help="'split/name'", shown_default="the paradigm's main one")

    @abstractmethod
    def reached(self, curve: Curve) -> str:
        """Say why the stage may end after these evaluations, '' while it may not."""

    def values(self, curve: Curve) -> list[float]:
        """Return the metric at each evaluation, as a number that is to rise.

        Raises:
            TrainingError: the metric is not measured.
        """
        values = [self._value(point["metrics"]) for point in curve]
        return [self._sign(curve) * value for value in values]

    @property
    def metric_name(self) -> str:
        """What messages call the metric."""
        return self.metric or "the main metric"

    def _value(self, metrics: Mapping[str, Any]) -> float:
        name = self.metric or next(iter(metrics), "")
        if name not in metrics:
            raise TrainingError(
                f"The stopping rule waits for the metric '{name}', which is not measured.",
                do=f"Name one of {', '.join(metrics) or 'none'}, or give the paradigm data to "
                "validate on.",
            )
        value = metrics[name]["value"]
        return math.nan if value is None else value

    def _sign(self, curve: Curve) -> int:
        metrics = curve[0]["metrics"]
        name = self.metric or next(iter(metrics))
        higher_is_better = metrics[name]["higher_is_better"]
        if higher_is_better is None:
            raise TrainingError(
                f"The stopping rule watches '{name}', and whether higher is better is not known.",
                do="Give that metric higher_is_better=True or False in val_evaluator.",
            )
        return 1 if higher_is_better else -1


@dataclass(frozen=True, kw_only=True)
class Until(StoppingRule):
    """Stop once the metric is as good as ``target``."""

    target: float = key(help="value to reach, from whichever side is worse")

    def reached(self, curve: Curve) -> str:
        """Say that the last evaluation is there, if it is."""
        values = self.values(curve)
        if not values or not values[-1] >= self._sign(curve) * self.target:
            return ""
        return f"{self.metric_name} has reached {self.target:g}"


@dataclass(frozen=True, kw_only=True)
class Gain(StoppingRule):
    """Stop once the metric no longer gains enough for its compute.

    The gain since the evaluation ``patience`` before, divided by the iterations since, is compared
    with the gain since the first evaluation, divided by those since then: both in the metric's own
    unit a FLOP, so that only their ratio counts.
    """

    minimum: float = key(0.1, help="share of the stage's mean gain a FLOP that is enough")
    patience: int = key(1, help="evaluations to look back", minimum=1)

    def reached(self, curve: Curve) -> str:
        """Say how little the last evaluations gained, if it is too little.

        It takes three evaluations to tell, and more with patience.
        """
        values, iters = self.values(curve), [point["iter"] for point in curve]
        if len(values) < self.patience + 2:
            return ""
        before_last = -1 - self.patience
        recent = (values[-1] - values[before_last]) / (iters[-1] - iters[before_last])
        mean = (values[-1] - values[0]) / (iters[-1] - iters[0])
        if mean > 0 and recent >= self.minimum * mean:
            return ""
        share = f"{recent / mean:.0%} of its mean" if mean > 0 else "nothing so far"
        return f"{self.metric_name} gains {share} a FLOP"


RULES: Mapping[str, type[StoppingRule]] = {"until": Until, "gain": Gain}


def stopping_rule(config: Mapping[str, Any] | None) -> StoppingRule | None:
    """Build the rule of ``dict(type=..., ...)``, or return None for None."""
    if config is None:
        return None
    options = {name: value for name, value in config.items() if name != "type"}
    return RULES[config["type"]](**options)


def stopping_config(rule: StoppingRule | None) -> dict[str, Any] | None:
    """Return the config of a rule, as :func:`stopping_rule` reads it."""
    if rule is None:
        return None
    (kind,) = (name for name, cls in RULES.items() if type(rule) is cls)
    return {"type": kind, **rule.to_dict()}
