"""The record of a finished stage, from which reports are made."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

import torch

from compt.files import FORMAT, read_json
from compt.planning.plans import StagePlan
from compt.training.runner import StageResult
from compt.workdir import WorkDir


def manifest(work: WorkDir, plan: StagePlan, result: StageResult, digest: str) -> dict[str, Any]:
    """What is known of a finished stage: what it was, cost and reached, as JSON types."""
    folder = work.stages[plan.index]
    grown = read_json(folder.growth)
    seconds = grown.get("seconds", 0.0)
    learned = ((grown["growth"] or {}).get("objective") or {"calls": 0})["calls"]
    plan = replace(
        plan,
        growth_iters=learned,
        iters=result.iters,
        samples=result.iters * plan.batch_size,
        teacher_iters=min(plan.teacher_iters, result.iters),
    )
    curve = [
        {
            **point,
            "samples": point["iter"] * plan.batch_size,
            "flops": plan.flops_until(point["iter"]),
            "seconds": seconds + point["seconds"],
        }
        for point in result.curve
    ]
    metrics = curve[-1]["metrics"] if curve else {}
    return {
        "format": FORMAT,
        "name": plan.name,
        "index": plan.index,
        "mode": work.mode,
        "paradigm": work.config.paradigm["type"],
        "grower": plan.grower,
        "transfer": plan.transfer,
        "params": plan.params,
        "samples": plan.samples,
        "iters": plan.iters,
        "batch_size": plan.batch_size,
        "flops": {
            "student_per_sample": plan.student_flops,
            "teacher_per_sample": plan.teacher_flops,
            "growth": plan.growth_flops,
            "total": plan.flops,
        },
        "seconds": seconds + result.seconds,
        "growth_seconds": seconds,
        "broken_samples": result.broken,
        "stopped": result.stopped,
        "metrics": metrics,
        "main_metric": next(iter(metrics), None),
        "curve": curve,
        "growth": grown["growth"],
        "weights": {"file": folder.weights.name, "sha256": digest},
        "environment": environment(),
    }


def environment() -> dict[str, str]:
    """What a figure was measured on."""
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads"
    )
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": device,
    }
