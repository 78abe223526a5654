"""Schedules in fractions of a stage: what rate each iteration has."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from compt.config.mmengine_keys import StageRunnerKeys
from compt.errors import ConfigError
from compt.training.schedules import check_schedule, in_iterations, scaled

DEFAULT = StageRunnerKeys().param_scheduler


def rates(configs, iters: int, lr: float = 1.0) -> list[float]:
    """Return the learning rate of each iteration, as mmengine's own schedules set it."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr, momentum=0.9)
    built = [
        PARAM_SCHEDULERS.build(config, default_args={"optimizer": optimizer})
        for config in in_iterations(configs, iters)
    ]
    values = []
    for _ in range(iters):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return values


@pytest.mark.parametrize("iters", [11, 20, 29])
def test_a_warm_up_of_one_iteration_rises(iters):
    values = rates(DEFAULT, iters)
    assert values[:2] == pytest.approx([1e-3, 1.0])
    assert values[2] < 1.0  # the cosine has begun where the warm-up ends


def test_a_warm_up_of_two_iterations_is_mmengines():
    assert rates(DEFAULT, 40)[:3] == pytest.approx([1e-3, 1.0, 1.0], abs=3e-3)


@pytest.mark.parametrize("iters", [1, 5, 10])
def test_a_warm_up_of_less_than_half_an_iteration_is_none(iters):
    assert rates(DEFAULT, iters)[0] == 1.0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (dict(type="ConstantLR", factor=0.1), [0.1, 1.0, 1.0]),
        (dict(type="PolyLR", eta_min=0.01), [1.0, 0.01, 0.01]),
        (dict(type="CosineAnnealingLR", eta_min=0.01), [1.0, 0.01, 0.01]),
        (dict(type="LinearLR", start_factor=1.0, end_factor=0.1), [1.0, 0.1, 0.1]),
    ],
)
def test_whatever_lasts_one_iteration_gets_to_its_end(schedule, expected):
    assert rates([{**schedule, "begin": 0.0, "end": 0.05}], 20)[:3] == pytest.approx(expected)
    assert rates([{**schedule, "begin": 0, "end": 1}], 20)[:3] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (dict(type="LinearLR", start_factor=1.0, end_factor=0.1), [1.0, 0.1, 0.1]),
        (dict(type="PolyLR", eta_min=0.01), [1.0, 0.01, 0.01]),
        (dict(type="LinearLR", start_factor=0.1), [1.0, 1.0, 1.0]),
        (dict(type="ConstantLR", factor=0.1), [1.0, 1.0, 1.0]),
    ],
)
def test_a_decay_too_short_for_an_iteration_still_leads_down(schedule, expected):
    """While a warm-up as short is none: both leave the rate that they lead to."""
    assert rates([{**schedule, "begin": 0.0, "end": 0.02}], 20)[:3] == pytest.approx(expected)


def test_lengths_of_every_kind_may_be_fractions():
    configs = [
        dict(type="MultiStepLR", milestones=[0.5, 0.8, 19]),
        dict(type="StepLR", step_size=0.25),
        dict(type="CosineRestartLR", periods=[0.25, 0.75], restart_weights=[1, 1], eta_min=0.0),
        dict(type="OneCycleLR", eta_max=0.1, total_steps=1.0),
        dict(type="CosineAnnealingLR", T_max=0.5, begin=0.25, end=0.75),
    ]
    multi, step, restart, cycle, cosine = in_iterations(configs, 20)
    assert multi["milestones"] == [10, 16, 19]
    assert (step["step_size"], restart["periods"], cycle["total_steps"]) == (5, [5, 15], 20)
    assert (cosine["T_max"], cosine["begin"], cosine["end"]) == (10, 5, 15)
    assert all(config["by_epoch"] is False for config in (multi, step, restart, cycle, cosine))


def test_a_period_of_less_than_an_iteration_is_one():
    assert rates([dict(type="StepLR", step_size=0.01, gamma=0.5)], 20)[:3] == [1.0, 0.5, 0.25]
    (milestones,) = in_iterations([dict(type="MultiStepLR", milestones=[0.0, 0.01])], 20)
    assert milestones["milestones"] == [0, 1]


def test_a_member_that_is_not_trained_has_no_schedules():
    assert in_iterations([*DEFAULT, dict(type="StepLR", step_size=3, begin=0, end=9)], 0) == []


def test_one_that_watches_a_metric_counts_evaluations():
    plateau = dict(type="ReduceOnPlateauLR", monitor="val/loss")
    assert in_iterations(plateau, 20) == [{**plateau, "by_epoch": True}]
    check_schedule({**plateau, "by_epoch": True}, 20)


def test_a_named_peak_is_scaled():
    schedules = [dict(type="OneCycleLR", eta_max=0.1), dict(type="ExponentialLR", gamma=0.9)]
    assert scaled(schedules, 0.5) == [dict(type="OneCycleLR", eta_max=0.05), schedules[1]]


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        (dict(type="LinearLR", begin=30, end=40), "begins at iteration 30, and the stage has 20"),
        (dict(type="LinearLR", begin=8, end=0.2), "begins at iteration 8, ends at 4"),
        (dict(type="LinearLR", begin=30), "begins at iteration 30, ends at 20"),
        (dict(type="OneCycleLR"), "needs eta_max"),
        (dict(type="OneCycleLR", eta_max=0.1, total_steps=5), "fails after iteration 5"),
        (dict(type="ExponentialLR", gamma=-1.0), "sets lr to -1 at iteration 1"),
        (dict(type="CosineAnnealingLR", eta_min=-5.0), "sets lr to -"),
        (dict(type="PolyLR", power=-1.0), "fails after iteration 18: ZeroDivisionError"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule, fault):
    (absolute,) = in_iterations(schedule, 20)
    with pytest.raises(ConfigError, match=fault):
        check_schedule(absolute, 20)


@pytest.mark.parametrize("schedule", DEFAULT)
def test_the_default_schedules_are_not_refused(schedule):
    for iters in (1, 2, 11, 1000):
        for absolute in in_iterations(schedule, iters):
            check_schedule(absolute, iters)


def test_a_one_cycle_schedule_goes_on_from_a_checkpoint(toy, tmp_path):
    """mmengine's state of it holds a function, which no checkpoint may."""
    from compt.training.checkpoint import _plain

    (config,) = in_iterations(dict(type="OneCycleLR", eta_max=0.1), 20)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = PARAM_SCHEDULERS.build(config, default_args={"optimizer": optimizer})
    assert any(callable(value) for value in scheduler.state_dict().values())
    torch.save(_plain(scheduler.state_dict()), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    scheduler.step()
    scheduler.load_state_dict(state)
    assert scheduler.last_step == 0
