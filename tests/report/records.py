"""Records written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compt.report.metrics import CurvePoint, MetricValue
from compt.report.record import Flops, StageRecord


def stage_record(
    name: str,
    points: Iterable[tuple[int, float, float, float | None]],
    *,
    metric: str = "val/loss",
    higher_is_better: bool = False,
    unit: str | None = None,
    flops: float = 100.0,
    **changes: Any,
) -> StageRecord:
    """A finished stage with points of (iteration, FLOPs, seconds, value) for a curve."""
    curve = tuple(
        CurvePoint(i, i, cost, seconds, {metric: MetricValue(value, None, higher_is_better, unit)})
        for i, cost, seconds, value in points
    )
    keys = dict(
        index=0,
        mode="individual",
        paradigm="toy",
        grower=None,
        transfer=None,
        params=1,
        samples=1,
        iters=curve[-1].iteration,
        batch_size=1,
        seconds=1.0,
        metrics=curve[-1].metrics,
        main_metric=metric,
    )
    return StageRecord(name=name, flops=Flops(flops), curve=curve, **{**keys, **changes})
