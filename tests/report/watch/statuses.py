"""Statuses of runs written by hand."""

from __future__ import annotations

from typing import Any

from compt.report.watch.status import RunStatus, StageStatus

METRIC = dict(metric="val/accuracy", chance=0.1, higher_is_better=True, unit="share")


def stage(name: str, state: str = "waiting", **changes: Any) -> StageStatus:
    """A stage of 100 iterations of 10 samples, and 1,000 FLOPs."""
    keys: dict[str, Any] = dict(flops=1000.0, iters=100, batch_size=10, state=state)
    if state == "done":
        points = ((500.0, 0.5), (1000.0, 0.7))
        keys |= dict(iteration=100, flops_done=1000.0, points=points, **METRIC)
    return StageStatus(name=name, **{**keys, **changes})


def run_status(*stages: StageStatus, **changes: Any) -> RunStatus:
    """A run that was last heard of at second 1,000."""
    keys: dict[str, Any] = dict(mode="chain", written=1000.0, progressed=1000.0)
    return RunStatus(stages=stages, **{**keys, **changes})


RUNNING = stage(
    "b",
    "running",
    iteration=40,
    flops_done=400.0,
    losses=((100.0, 4.0), (200.0, 3.0), (400.0, 2.0)),
    samples_per_second=812.4,
    seconds_left=34.0,
)
"""Two fifths of a stage."""
