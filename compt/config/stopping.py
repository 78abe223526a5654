"""Rules that end a stage before its budget is spent: a figure is reached, or more compute no longer
pays.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from compt.errors import TrainingError

Curve = Sequence[Mapping[str, Any]]
"""Evaluations so far: ``iter``, and ``metrics`` by 'split/name' with ``value`` and
``higher_is_better``.
"""


@dataclass(frozen=True)
class Rule(ABC):
    """When to stop, judged after every evaluation; ``metric`` is 'split/name', None the paradigm's
    main one.
    """

    metric: str | None = None

    @abstractmethod
    def reached(self, curve: Curve) -> str:
        """Why the stage may end after these evaluations, '' while it may not."""

    def values(self, curve: Curve) -> list[float]:
        """The metric at each evaluation, as a number that is to rise.

        Raises:
            TrainingError: the metric is not measured.
        """
        found = []
        for point in curve:
            metrics = point["metrics"]
            name = self.metric or next(iter(metrics), "")
            if name not in metrics:
                raise TrainingError(
                    f"The budget waits for the metric '{name}', which is not measured.",
                    do=f"Name one of {', '.join(metrics) or 'none'}, or give the paradigm held-out data.",
                )
            value = metrics[name]["value"]
            found.append(self._sign(curve) * (math.nan if value is None else value))
        return found

    def _sign(self, curve: Curve) -> int:
        metrics = curve[0]["metrics"]
        return 1 if metrics[self.metric or next(iter(metrics))]["higher_is_better"] else -1


@dataclass(frozen=True)
class Until(Rule):
    """Until the metric is as good as ``target``."""

    target: float = math.nan

    def reached(self, curve: Curve) -> str:
        """Whether the last evaluation is there."""
        values = self.values(curve)
        if not values or not values[-1] >= self._sign(curve) * self.target:
            return ""
        return f"{self.metric or 'the main metric'} has reached {self.target:g}"


@dataclass(frozen=True)
class Gain(Rule):
    """While the metric gains enough for its compute: at least ``minimum`` times the stage's mean
    gain a FLOP.

    The gain since the evaluation ``patience`` before, divided by the iterations since, is compared
    with the gain since the first evaluation, divided by those since then: both in the metric's own
    unit a FLOP, so that only their ratio counts.
    """

    minimum: float = 0.1
    patience: int = 1

    def reached(self, curve: Curve) -> str:
        """Whether the last evaluations gained too little; three are needed, and more with
        patience.
        """
        values, iters = self.values(curve), [point["iter"] for point in curve]
        if len(values) < self.patience + 2:
            return ""
        recent = (values[-1] - values[-1 - self.patience]) / (iters[-1] - iters[-1 - self.patience])
        mean = (values[-1] - values[0]) / (iters[-1] - iters[0])
        if mean > 0 and recent >= self.minimum * mean:
            return ""
        share = f"{recent / mean:.0%} of its mean" if mean > 0 else "nothing so far"
        return f"{self.metric or 'the main metric'} gains {share} a FLOP"


RULES: Mapping[str, type[Rule]] = {"until": Until, "gain": Gain}


def rule_of(config: Mapping[str, Any] | None) -> Rule | None:
    """The rule of a stage's ``budget=dict(type=..., ...)``, None without one."""
    if config is None:
        return None
    return RULES[config["type"]](**{key: value for key, value in config.items() if key != "type"})


def options_of(kind: str) -> list[str]:
    """The options of a rule."""
    return [field.name for field in fields(RULES[kind])]
