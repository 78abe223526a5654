"""A chain held against individual training: who reached whom, and for how much compute."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from compt.files import FORMAT
from compt.report.results import MemberResult, Point, RunResult


@dataclass(frozen=True)
class MemberComparison:
    """One member of a chain against the same member trained individually.

    ``status`` tells whether the chain reached the individual member's final main figure. The
    individual member is charged its whole budget (``individual_first_flops``: when it first
    measured that figure itself), the chain's stage the FLOPs to its first measurement at or beyond
    it. An acceleration is None unless reached, or where no FLOPs were needed.
    """

    name: str
    status: Literal["reached", "missed", "unfinished", "incomparable"]
    reason: str = ""
    chance: float | None = None
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
    """A chain against individual training; the accelerations are None unless every member reached.

    ``reached_flops`` charges every stage only until it reached, ``chain_flops`` (and the full
    acceleration) to its end, as it really ran before the next stage inherited from it.
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
        """The report as JSON types."""
        return json.loads(json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False))


def compare(chain: RunResult, individual: RunResult) -> Comparison:
    """Hold every member of a chain against the same member trained individually."""
    names = dict.fromkeys([*(m.name for m in individual.members), *individual.unfinished])
    names |= dict.fromkeys([*(m.name for m in chain.members), *chain.unfinished])
    members = tuple(_compare_member(name, chain, individual) for name in names)
    costs = [m.reached_flops for m in members if m.reached_flops is not None]
    everyone = len(costs) == len(members)
    reached = sum(costs) if everyone else None
    return Comparison(
        chain=chain.label,
        individual=individual.label,
        members=members,
        missed=tuple(m.name for m in members if m.status == "missed"),
        individual_flops=individual.flops,
        chain_flops=chain.flops,
        reached_flops=reached,
        acceleration=_ratio(individual.flops, reached),
        acceleration_full=_ratio(individual.flops, chain.flops if everyone else None),
    )


def _compare_member(name: str, chain: RunResult, individual: RunResult) -> MemberComparison:
    for run in (individual, chain):
        if name in run.unfinished:
            return MemberComparison(name, "unfinished", f"not finished in '{run.label}'")
    alone, student = _find(individual, name), _find(chain, name)
    if alone is None or student is None:
        only = individual.label if student is None else chain.label
        return MemberComparison(name, "incomparable", f"only in '{only}'")
    goal, final = alone.main, student.main
    if goal is None or final is None or alone.main_metric is None:
        return MemberComparison(name, "incomparable", "without a finite main figure")
    if alone.main_metric != student.main_metric:
        reason = f"main figures {alone.main_metric} and {student.main_metric}"
        return MemberComparison(name, "incomparable", reason)
    if alone.params != student.params:
        return MemberComparison(
            name, "incomparable", f"{alone.params:,} and {student.params:,} parameters"
        )
    higher = bool(goal["higher_is_better"])
    reached = _first(student.curve, alone.main_metric, goal["value"], higher)
    difference = final["value"] - goal["value"]
    gain = difference if higher else -difference
    total = None if reached is None else reached + student.ancestor_flops
    return MemberComparison(
        name=name,
        status="missed" if reached is None else "reached",
        chance=goal["chance"],
        individual=goal["value"],
        chain=final["value"],
        difference=difference,
        verdict="better" if gain > 0 else "worse" if gain < 0 else "equal",
        individual_flops=alone.flops,
        individual_first_flops=_first(alone.curve, alone.main_metric, goal["value"], higher),
        reached_flops=reached,
        ancestor_flops=student.ancestor_flops,
        acceleration=_ratio(alone.flops, reached),
        acceleration_with_ancestors=_ratio(alone.flops, total),
    )


def _find(run: RunResult, name: str) -> MemberResult | None:
    return next((member for member in run.members if member.name == name), None)


def _first(curve: Iterable[Point], metric: str, goal: float, higher: bool) -> float | None:
    """FLOPs of the first measured point at or beyond the goal; nothing is interpolated."""
    for point in curve:
        value = point.metrics.get(metric)
        if value is not None and (value >= goal if higher else value <= goal):
            return point.flops
    return None


def _ratio(numerator: float, denominator: float | None) -> float | None:
    return numerator / denominator if denominator else None
