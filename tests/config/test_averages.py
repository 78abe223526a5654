"""Averages of weights as a config writes them, and as a stage of some length makes them."""

from __future__ import annotations

import pytest

from compt.config import load_config
from compt.config.averages import ExponentialAverage, MeanAverage
from tests.config.conftest import faults


@pytest.mark.parametrize(("half_life", "iters"), [(0.25, 8), (2, 8), (2, 1000), (0.002, 1000)])
def test_after_a_half_life_weights_count_half(half_life, iters):
    momentum = ExponentialAverage(half_life=half_life).hook_options(iters)["momentum"]
    assert (1 - momentum) ** 2 == pytest.approx(0.5)


@pytest.mark.parametrize("half_life", [0.01, 1])
def test_no_half_life_is_shorter_than_an_iteration(half_life):
    assert ExponentialAverage(half_life=half_life).hook_options(8) == {"momentum": 0.5}


@pytest.mark.parametrize(("begin", "iteration"), [(0.6, 5), (0.0, 1), (0, 1), (3, 3), (1.0, 8)])
def test_a_mean_begins_after_an_iteration(begin, iteration):
    assert MeanAverage(begin=begin).hook_options(8) == {"begin_iter": iteration}


@pytest.mark.parametrize(
    ("average", "why"),
    [
        (dict(type="ema"), "average.half_life is missing"),
        (dict(type="ema", half_life=0), "average.half_life: 0 is not a positive number"),
        (dict(type="ema", half_life=1.5), "average.half_life: 1.5 is no fraction of the stage"),
        (dict(type="ema", momentum=0.1, half_life=0.1), "average.momentum is not a key"),
        (dict(type="mean"), "average.begin is missing"),
        (dict(type="mean", begin=-1), "average.begin: -1 is not a number"),
        (dict(type="swa", begin=0.1), "average: type='swa' is not 'ema' or 'mean'"),
        ("ema", "average: 'ema' is not a dict"),
    ],
)
def test_faults_are_named(toy, average, why):
    toy["average"] = average
    assert [fault for fault in faults(toy) if fault.startswith(why)], faults(toy)


def test_a_stage_may_have_its_own_or_none(toy):
    toy["average"] = dict(type="mean", begin=0.5)
    toy["chain"][1]["average"] = None
    toy["chain"][2]["average"] = dict(type="ema", half_life=0.1)
    averages = [stage.average for stage in load_config(toy).stages]
    assert averages == [MeanAverage(begin=0.5), None, ExponentialAverage(half_life=0.1)]


def test_an_average_takes_the_place_of_the_decay_before_which_a_trunk_ends(toy):
    toy |= dict(trunk=True, param_scheduler=[])
    assert len(faults(toy)) == 3
    toy["average"] = dict(type="mean", begin=0.5)
    assert all(stage.trunk for stage in load_config(toy).stages)
    toy["param_scheduler"] = [dict(type="CosineAnnealingLR", eta_min=0.0)]
    assert len(faults(toy)) == 3
