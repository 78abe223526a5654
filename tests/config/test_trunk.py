"""Where a stage has a plateau that the next member can grow from, and what is said where not."""

from __future__ import annotations

import re
from typing import Any

import pytest

import compt
from compt.config import load_config
from compt.config.rates import decay_begin, plateau_fault
from compt.errors import ConfigError
from tests.config.conftest import faults


def warmup(end: float, **options: Any) -> dict[str, Any]:
    return dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=end, **options)


def decay(begin: float, kind: str = "CosineAnnealingLR") -> dict[str, Any]:
    return dict(type=kind, eta_min=0.0, begin=begin, end=1.0)


def falling(begin: float) -> dict[str, Any]:
    return dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=begin, end=1.0)


@pytest.mark.parametrize(
    ("schedules", "begin"),
    [
        ([warmup(0.05), decay(0.8)], 0.8),
        ([warmup(10), decay(100)], 100),
        ([warmup(10), decay(0.5)], 0.5),
        ([falling(0.3)], 0.3),
        (falling(0.3), 0.3),
        ([dict(type="ConstantLR", factor=0.5, begin=0.0, end=0.6), falling(0.6)], 0.6),
    ],
)
def test_the_plateau_ends_where_the_last_schedule_begins(schedules, begin):
    assert decay_begin(schedules) == begin
    assert plateau_fault(schedules) == ""


@pytest.mark.parametrize(
    ("schedules", "why"),
    [
        ([], "ends with no decay"),
        ([warmup(0.05)], "ends with no decay"),
        ([dict(type="ConstantLR", factor=0.5, begin=0.1)], "ends with no decay"),
        ([decay(0.0)], "CosineAnnealingLR, begins with the stage"),
        ([dict(type="CosineAnnealingLR")], "begins with the stage"),
        ([warmup(0.05), dict(type="StepLR", step_size=0.3)], "StepLR, begins with the stage"),
        ([warmup(0.05), decay(0.05)], r"begins at 0\.05, where LinearLR ends \(0\.05\)"),
        ([dict(type="ExponentialLR", gamma=0.9), falling(0.5)], "up to the end of the stage"),
    ],
)
def test_a_config_without_a_plateau_is_refused(toy, schedules, why):
    toy |= dict(trunk=True, param_scheduler=schedules)
    found = faults(toy)
    assert [fault.partition(":")[0] for fault in found] == [f"chain.{i}.trunk" for i in range(3)]
    for fault in found:
        assert re.search(why, fault), fault
    toy["trunk"] = False
    load_config(toy)


def test_the_default_schedule_has_none_and_a_stage_may_differ(toy):
    toy["trunk"] = True
    assert len(faults(toy)) == 3
    toy["chain"][1]["param_scheduler"] = [decay(0.5)]
    for index in (0, 2):
        toy["chain"][index]["trunk"] = False
    assert [stage.trunk for stage in load_config(toy).stages] == [False, True, False]


@pytest.mark.parametrize(
    ("begin", "iters", "last"), [(0.75, 8, 6), (0.7, 8, 6), (5, 8, 5), (0.01, 8, 0), (0.99, 8, 8)]
)
def test_the_plan_says_after_which_iteration(toy, begin, iters, last):
    """Where no iteration of a plateau, or of a decay, is left it is a fault."""
    toy["chain"] = [dict(toy["chain"][0], iters=iters, trunk=True, param_scheduler=[decay(begin)])]
    if 0 < last < iters:
        assert compt.plan(toy).stages[0].plateau_iter == last
        assert compt.plan(toy, individual=True).stages[0].plateau_iter is None
    else:
        with pytest.raises(ConfigError, match=f"decay begins at iteration {last},"):
            compt.plan(toy)


def test_a_warm_up_in_iterations_may_take_all_of_a_plateau(toy):
    """Where the decay is a fraction, only the plan can tell."""
    toy["chain"] = [dict(toy["chain"][0], trunk=True, param_scheduler=[warmup(4), decay(0.5)])]
    with pytest.raises(ConfigError, match=r"warm-up ends at iteration 4 and its decay .* 4, so"):
        compt.plan(toy)
    toy["chain"][0]["iters"] = 10
    assert compt.plan(toy).stages[0].plateau_iter == 5
