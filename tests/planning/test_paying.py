"""When a planned chain will hardly pay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compt.planning.paying import doubts
from compt.planning.plans import ChainPlan, StagePlan


def stage(index: int, **changes) -> StagePlan:
    """One of two members, the second with four times the cost and a quarter of the samples."""
    values = dict(
        name="ab"[index],
        index=index,
        params=1000 * 3**index,
        grower="lossless" if index else None,
        transfer=None,
        batch_size=10,
        iters=100 if not index else 25,
        samples=1000 if not index else 250,
        teacher_iters=0,
        student_flops=100.0 * 4**index,
        teacher_flops=0.0,
        alone_samples=1000,
        expansion=3.0 if index else None,
    )
    return StagePlan(**{**values, **changes})


def said(*stages: StagePlan) -> str:
    return "\n".join(doubt.what for doubt in doubts(ChainPlan(stages)))


def test_a_chain_by_the_rules_is_not_doubted():
    assert said(stage(0), stage(1)) == ""


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({}, dict(expansion=1.2), "'b' is 1.20 times as large"),
        ({}, dict(iters=90, samples=900), "'b' is trained for 90% of what it has alone"),
        (dict(iters=900, samples=9000), {}, "'a' takes as much compute as 'b' alone"),
        (dict(iters=900, samples=9000), {}, "takes 2.00 times the compute of all members alone"),
        ({}, dict(transfer="x", teacher_iters=25, teacher_flops=250.0), "teacher takes 38% of"),
    ],
)
def test_what_speaks_against_a_chain_is_said(first, second, words):
    assert words in said(stage(0, **first), stage(1, **second))


def test_one_member_is_no_chain():
    assert said(stage(0)) == "There is one member."


def test_as_long_alone_as_in_the_chain_compares_quality_not_compute():
    equal = [replace(s, alone_samples=s.samples, teacher_iters=1) for s in (stage(0), stage(1))]
    assert said(*equal) == ""


def test_members_alone_are_not_doubted():
    assert doubts(ChainPlan((stage(0),), individual=True)) == []
