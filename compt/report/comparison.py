"""Hold a chain against individual training, by who reached whom and for how much compute."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from compt.files import FORMAT
from compt.report.metrics import MetricValue
from compt.report.record import StageRecord
from compt.report.results import MemberResult, RunResult


@dataclass(frozen=True)
class MemberComparison:
    """One member of a chain against the same member trained individually.

    ``status`` tells whether the chain reached the individual member's final main metric. The
    individual member is charged its whole budget (``individual_first_flops``: when it first
    measured that value itself), the chain's stage the FLOPs to its first measurement at or beyond
    it. An acceleration is None unless reached, or where no FLOPs were needed.
    """

    name: str
    status: Literal["reached", "missed", "unfinished", "incomparable"]
    reason: str = ""
    chance: float | None = None
    unit: str | None = None
    individual: float | None = None
    chain: float | None = None
    difference: float | None = None
    verdict: Literal["better", "equal", "worse"] | None = None
    individual_flops: float | None = None
    individual_first_flops: float | None = None
    reached_flops: float | None = None
    ancestor_flops: float | None = None
    acceleration: float | None = None
    acceleration_with_ancestors: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A chain against individual training.

    The accelerations are None unless every member reached. ``reached_flops`` charges every stage
    only until it reached, ``chain_flops`` (and the full acceleration) to its end, as it really ran
    before the next stage inherited from it.
    """

    chain: str
    individual: str
    members: tuple[MemberComparison, ...]
    missed: tuple[str, ...]
    individual_flops: float
    chain_flops: float
    reached_flops: float | None
    acceleration: float | None
    acceleration_full: float | None


@dataclass(frozen=True)
class Report:
    """All runs, and one comparison a chain where exactly one of them is individual."""

    runs: tuple[RunResult, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "runs": [run.to_json() for run in self.runs],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "notes": self.notes,
        }
        content = json.loads(json.dumps(content, allow_nan=False))
        return content


def compare(chain: RunResult, individual: RunResult) -> Comparison:
    """Hold every member of a chain against the same member trained individually."""
    names = dict.fromkeys([*(m.name for m in individual.members), *individual.unfinished])
    names |= dict.fromkeys([*(m.name for m in chain.members), *chain.unfinished])
    members = tuple(_compare_member(name, chain, individual) for name in names)
    costs = [m.reached_flops for m in members if m.reached_flops is not None]
    all_reached = len(costs) == len(members)
    reached = sum(costs) if all_reached else None
    return Comparison(
        chain=chain.label,
        individual=individual.label,
        members=members,
        missed=tuple(m.name for m in members if m.status == "missed"),
        individual_flops=individual.flops,
        chain_flops=chain.flops,
        reached_flops=reached,
        acceleration=_ratio(individual.flops, reached),
        acceleration_full=_ratio(individual.flops, chain.flops if all_reached else None),
    )


def _compare_member(name: str, chain: RunResult, individual: RunResult) -> MemberComparison:
    for run in (individual, chain):
        if name in run.unfinished:
            return MemberComparison(name, "unfinished", f"not finished in '{run.label}'")
    alone, student = individual.find(name), chain.find(name)
    if alone is None or student is None:
        only = individual.label if student is None else chain.label
        return MemberComparison(name, "incomparable", f"only in '{only}'")
    if reason := _why_incomparable(alone.record, student.record):
        return MemberComparison(name, "incomparable", reason)
    return _compare_results(alone, student)


def _why_incomparable(alone: StageRecord, student: StageRecord) -> str:
    """Return why two records are not of one member measured alike, '' where they are."""
    if alone.main is None or student.main is None:
        return "without a finite main metric"
    if alone.main_metric != student.main_metric:
        return f"main metrics {alone.main_metric} and {student.main_metric}"
    if alone.params != student.params:
        return f"{alone.params:,} and {student.params:,} parameters"
    return ""


def _compare_results(alone: MemberResult, student: MemberResult) -> MemberComparison:
    """Hold a member of a chain against the same member alone, both with a main metric."""
    goal, final = alone.record.main, student.record.main
    assert goal is not None and goal.value is not None
    assert final is not None and final.value is not None
    name = alone.record.main_metric or ""
    reached = _first_flops(student.record, name, goal)
    difference = final.value - goal.value
    return MemberComparison(
        name=alone.name,
        status="missed" if reached is None else "reached",
        chance=goal.chance,
        unit=goal.unit,
        individual=goal.value,
        chain=final.value,
        difference=difference,
        verdict=_verdict(goal, difference),
        individual_flops=alone.flops,
        individual_first_flops=_first_flops(alone.record, name, goal),
        reached_flops=reached,
        ancestor_flops=student.ancestor_flops,
        acceleration=_ratio(alone.flops, reached),
        acceleration_with_ancestors=_ratio(
            alone.flops, None if reached is None else reached + student.ancestor_flops
        ),
    )


def _verdict(metric: MetricValue, difference: float) -> Literal["better", "equal", "worse"]:
    if not difference:
        return "equal"
    return "better" if metric.sign * difference > 0 else "worse"


def _first_flops(record: StageRecord, metric: str, goal: MetricValue) -> float | None:
    """Return the FLOPs of the first measured point at or beyond the goal.

    Nothing is interpolated: a chain is charged for what it had to compute to be seen there.
    """
    for point in record.curve:
        if goal.reached_by(point.value(metric)):
            return point.flops
    return None


def _ratio(numerator: float, denominator: float | None) -> float | None:
    return numerator / denominator if denominator else None
