"""Hold runs against each other on the held-out splits by which the rule does not judge."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from measuring.job import Job
from measuring.runs import Bench


def figures(bench: Bench, job: Job) -> list[str]:
    """Return the names of the same figure as the rule's on other splits, such as 'icon/loss'."""
    own = bench.metric(job.result)
    kind = own.partition("/")[2]
    return [
        name for name in job.result.record.metrics if name != own and name.partition("/")[2] == kind
    ]


def levels(bench: Bench, jobs: Sequence[Job]) -> dict[str, float]:
    """Return the means of these figures over runs of several seeds, by name."""
    if any(job.diverged for job in jobs):
        return {}
    return {
        name: statistics.mean(_value(job, name) for job in jobs) for name in figures(bench, jobs[0])
    }


def gains(bench: Bench, jobs: Sequence[Job], others: Sequence[Job]) -> dict[str, float]:
    """Return by how much runs are better than others of the same seeds, which may be more."""
    others = others[: len(jobs)]
    own, theirs = levels(bench, jobs), levels(bench, others)
    if not (own and theirs):
        return {}
    metrics = jobs[0].result.record.metrics
    return {name: 0.0 + metrics[name].sign * (own[name] - theirs[name]) for name in own}


def _value(job: Job, name: str) -> float:
    value = job.result.record.metrics[name].value
    return float("nan") if value is None else value
