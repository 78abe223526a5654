"""Write what a run does as lines of ``key=value``, for logs that programs and people read.

Each line says by itself which stage it is of. A value with a blank, a quotation mark or an equals
sign in it is written as a JSON string.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compt.registry.registry import short_name
from compt.report.format import clock
from compt.report.speed import device_peak, mfu
from compt.report.watch.status import RunStatus, StageStatus

if TYPE_CHECKING:
    from compt.planning.plans import StagePlan
    from compt.report.growth import GrowthReport
    from compt.report.metrics import Metrics
    from compt.report.record import StageRecord

SHOWN_METRICS = 3
"""How many of a stage's metrics are shown; its manifest has all."""
QUOTED = re.compile(r'[\s"=]|^$')
PAIR = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|\S*)')


def line(**pairs: Any) -> str:
    """Write pairs as one line, with the time at its end; those of None are left out."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    present = {name: value for name, value in {**pairs, "time": stamp}.items() if value is not None}
    return " ".join(f"{name}={_written(value)}" for name, value in present.items())


def parse_line(text: str) -> dict[str, str]:
    """Read a line back as text by key."""
    return {
        name: json.loads(value) if value.startswith('"') else value
        for name, value in PAIR.findall(text)
    }


def start_line(plan: StagePlan) -> str:
    """Write what begins."""
    return line(
        stage=plan.name,
        event="start",
        iters=plan.iters,
        batch_size=plan.batch_size,
        grower=short_name(plan.grower or "none"),
        transfer=short_name(plan.transfer or "none"),
    )


def growing_line(stage: StageStatus, loss: float) -> str:
    """Write how far a grower is that learns."""
    return line(
        stage=stage.name,
        event="growing",
        calls=_calls(stage),
        loss=f"{loss:.4g}",
        **_pace(stage),
    )


def grown_line(name: str, growth: GrowthReport) -> str:
    """Write whether growing kept the function, and what became of how many tensors."""
    return line(
        stage=name,
        event="grown",
        keeps_function="yes" if growth.function_preserving else "no",
        error=None if growth.error is None else f"{growth.error:.1e}",
        reason=growth.reason or None,
        **growth.counts,
        dropped=len(growth.dropped) or None,
    )


def training_line(status: RunStatus, stage: StageStatus, loss: float | None) -> str:
    """Write how far a stage is."""
    return line(
        stage=stage.name,
        event="train",
        iter=f"{stage.iteration}/{stage.iters}",
        loss=None if loss is None else f"{loss:.4g}",
        **_pace(stage),
        **(chain_left(status) if len(status.stages) > 1 else {}),
        memory_mib=_mib(status.memory_bytes),
        gpu_mib=_mib(status.device_memory_bytes),
    )


def chain_left(status: RunStatus) -> Mapping[str, str]:
    """Return how long a run will take, and whether that is a bound, where it is known."""
    if status.seconds_left is None:
        return {}
    pairs = {"chain_left": clock(status.seconds_left)}
    return {**pairs, "chain_left_is": "at_most"} if status.left_is_bound else pairs


def stage_pairs(stage: StageStatus, *, is_running: bool) -> Mapping[str, str | None]:
    """Return what a line says of the stage that a run is at, or was when it ended."""
    loss = f"{stage.losses[-1][1]:.4g}" if stage.losses else None
    metric = {}
    if stage.metric and stage.points:
        metric = {stage.metric: f"{stage.points[-1][1]:.6g}"}
    at = f"{stage.iteration}/{stage.iters}"
    return {
        "stage": stage.name,
        "state": stage.state if is_running else None,
        "calls": _calls(stage) if stage.state == "growing" else None,
        "iter": at,
        "loss": loss,
        **(_pace(stage) if is_running else {}),
        **metric,
    }


def metrics_line(stage: StageStatus, iteration: int, metrics: Metrics) -> str:
    """Write what an evaluation has measured."""
    return line(
        stage=stage.name,
        event="evaluated",
        iter=f"{iteration}/{stage.iters}",
        **_values(metrics),
    )


def done_line(record: StageRecord) -> str:
    """Write what a finished stage was, cost and reached."""
    energy, rate = record.energy_joules, record.flops_per_second
    share = mfu(record, device_peak(record))
    return line(
        stage=record.name,
        event="done",
        iters=record.iters,
        seconds=_tenths(record.seconds),
        evaluation_seconds=_tenths(record.evaluation_seconds),
        samples_per_s=_rate(record.samples_per_second),
        device_tflops=None if rate is None else f"{rate / 1e12:.3g}",
        mfu=None if share is None else f"{share:.3f}",
        memory_mib=_mib(record.peak_memory_bytes),
        gpu_mib=_mib(record.peak_device_memory_bytes),
        energy_kj=None if energy is None else f"{energy / 1e3:.4g}",
        unreadable_samples=record.broken_samples or None,
        stopped=record.stopped or None,
        **_values(record.metrics),
    )


def _values(metrics: Metrics) -> Mapping[str, str]:
    """Return the values of the first metrics as text, 'nan' where one is not finite."""
    return {
        name: "nan" if metric.value is None else f"{metric.value:.6g}"
        for name, metric in list(metrics.items())[:SHOWN_METRICS]
    }


def _calls(stage: StageStatus) -> str:
    return f"{stage.growth_calls}/{stage.growth_iters}"


def _pace(stage: StageStatus) -> Mapping[str, str | None]:
    left = stage.seconds_left
    return {
        "samples_per_s": _rate(stage.samples_per_second),
        "left": None if left is None else clock(left),
    }


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _tenths(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _mib(num_bytes: int | None) -> int | None:
    return None if num_bytes is None else round(num_bytes / 2**20)


def _written(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if QUOTED.search(text) else text
