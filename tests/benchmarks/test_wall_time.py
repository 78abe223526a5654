"""Where the time of a chain goes that its FLOPs do not tell."""

from __future__ import annotations

import pytest
from wall_time import Run, Stage, ratios, read_run

import compt
from compt.errors import WorkDirError


def stage(name, flops, training, loading=0.0, growth=0.0, checkpoints=0.0, evaluations=0.0):
    return Stage(name, flops, training, loading, growth, checkpoints, evaluations)


def test_the_ratio_is_followed_from_flops_to_seconds():
    """Alone, 'a' makes 1 FLOP a second and 'b' 10; the chain's 'b' has a teacher, and takes 2."""
    alone = Run((stage("a", 10, 10, 1, 0, 1, 1), stage("b", 90, 9, 1, 0, 1, 1)), 29)
    chain = Run((stage("a", 10, 10, 1, 0, 1, 1), stage("b", 10, 2, 0.5, 1, 0.5, 1)), 23)
    steps = dict(ratios(chain, alone))
    assert steps == {
        "in FLOPs": 100 / 20,
        "at the rate of each member alone": 19 / (10 + 1),
        "in seconds of training": 19 / 12,
        "with loading": 21 / 13.5,
        "with growth": 21 / 14.5,
        "with checkpoints": 23 / 16,
        "with evaluations": 25 / 18,
        "in seconds, with the rest": 29 / 23,
    }


def test_a_chain_that_is_like_alone_saves_nothing_anywhere():
    run = Run((stage("a", 10, 10, 1, 0, 1, 1), stage("b", 90, 9, 1, 0, 1, 1)), 29)
    assert {ratio for _, ratio in ratios(run, run)} == {1.0}


def test_what_cannot_be_compared_is_refused(tmp_path):
    one = Run((stage("a", 10, 10),), 11)
    with pytest.raises(WorkDirError, match="Not trained alone: b"):
        list(ratios(Run((*one.stages, stage("b", 1, 1)), 12), one))
    with pytest.raises(WorkDirError, match=r"status\.json"):
        read_run(tmp_path)


def test_a_member_that_was_taken_over_counts_as_it_was_measured(toy, tmp_path):
    """As ``compare=True`` leaves it: the first member is trained once."""
    toy |= dict(compare=True, individual=dict(budget="chain"))
    compt.train(toy, work_dir=tmp_path / "w")
    chain = read_run(tmp_path / "w")
    alone = read_run(tmp_path / "w_individual", chain)
    assert alone.stages[0] == chain.stages[0]
    assert alone.wall > alone.stages[0].seconds and alone.rest > 0
