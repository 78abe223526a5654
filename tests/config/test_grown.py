"""How grown members are trained otherwise: the keys of ``grown``, and what is wrong with them."""

from __future__ import annotations

import re

import pytest

import compt
from compt.config import load_config
from compt.config.averages import ExponentialAverage, MeanAverage
from compt.config.options import GrownOptions
from compt.config.rates import with_warmup
from compt.report.plan_table import plan_text
from tests.config.conftest import faults
from tests.conftest import config_file


def test_by_default_nothing_differs(toy):
    assert [stage.grown for stage in load_config(toy).stages] == [GrownOptions()] * 3
    assert GrownOptions() == GrownOptions(lr_mult=1.0, new_lr_mult=None, optimizer_state=False)


def test_a_stage_overrides_the_chains_options_whole(toy):
    toy["grown"] = dict(lr_mult=0.5, new_lr_mult=2.0)
    toy["chain"][1]["grown"] = dict(optimizer_state=True)
    toy["chain"][2]["grown"] = None
    a, b, c = (stage.grown for stage in load_config(toy).stages)
    assert a == GrownOptions(lr_mult=0.5, new_lr_mult=2.0)
    assert (b, c) == (GrownOptions(optimizer_state=True), GrownOptions())


def test_options_of_the_command_line_reach_them(toy):
    options = {"grown.lr_mult": 0.5, "chain.1.grown.new_lr_mult": 2}
    assert [(s.grown.lr_mult, s.grown.new_lr_mult) for s in load_config(toy, options).stages] == [
        (0.5, None),
        (1.0, 2),
        (0.5, None),
    ]


@pytest.mark.parametrize(
    ("options", "ratio"),
    [
        ({}, 1),
        (dict(lr_mult=0.5), 1),
        (dict(new_lr_mult=3.0), 3),
        (dict(lr_mult=4, new_lr_mult=1), 0.25),
    ],
)
def test_new_entries_learn_at_their_share_of_the_members_rate(options, ratio):
    grown = GrownOptions(**options)
    assert grown.new_ratio(grown.rate(0.25)) == ratio


def test_all_faults_of_the_options_are_told_at_once(toy):
    toy["grown"] = dict(lr_mult=0, new_lr_mult=-0.5, optimizer_state=1)
    toy["chain"][1]["grown"] = dict(lr_mut=2.0)
    toy["chain"][2]["grown"] = 5
    toy["seed"] = -1
    found = faults(toy)
    expected = [
        r"^grown\.lr_mult: 0 is not a positive number",
        r"^grown\.new_lr_mult: -0\.5 is not a positive number",
        r"^grown\.optimizer_state: 1 is not True or False",
        r"^chain\.1\.grown\.lr_mut is not a key.*'lr_mult'",
        r"^chain\.2\.grown: 5 is not a dict",
        r"^seed: -1 ",
    ]
    for pattern in expected:
        assert sum(bool(re.search(pattern, fault)) for fault in found) == 1, (pattern, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize("key", ["lr_mult", "new_lr_mult"])
@pytest.mark.parametrize("value", [0, -1, True, "a", float("nan"), float("inf"), [1.0]])
def test_rates_are_positive_numbers(toy, key, value):
    toy["grown"] = {key: value}
    (fault,) = faults(toy)
    assert fault.startswith(f"grown.{key}: {value!r} is not a positive number")


@pytest.mark.parametrize("where", ["chain", "stage"])
def test_a_rate_of_none_is_refused(toy, where):
    (toy if where == "chain" else toy["chain"][1])["grown"] = dict(lr_mult=None)
    (fault,) = faults(toy)
    assert "grown.lr_mult: None" in fault


def test_an_unknown_key_of_the_whole_chain_is_named(toy):
    toy["grown"] = dict(lr_mut=2.0)
    (fault,) = faults(toy)
    assert re.match(r"grown\.lr_mut is not a key.*'lr_mult'", fault)


@pytest.mark.parametrize(
    ("optimizers", "told"),
    [
        (("AdamW", "Adam"), "AdamW and Adam"),
        (("SGD", "AdamW"), "SGD and AdamW"),
        (("RMSprop", "RMSprop"), "RMSprop and RMSprop"),
    ],
)
def test_a_state_needs_one_optimizer_that_it_can_be_carried_by(toy, optimizers, told):
    for stage, kind in zip(toy["chain"], optimizers):
        stage["optim_wrapper"] = dict(optimizer=dict(type=kind, lr=1e-3))
    toy["chain"][1]["grown"] = dict(optimizer_state=True)
    (fault,) = faults(toy)
    assert re.match(
        rf"chain\.1: grown\.optimizer_state needs the same optimizer .*Adam, AdamW, SGD.*{told}",
        fault,
    )
    toy["chain"][1]["grown"] = dict(lr_mult=0.5)
    load_config(toy)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_usual_optimizers_can_be_carried(toy, kind):
    toy |= dict(
        grown=dict(optimizer_state=True), optim_wrapper=dict(optimizer=dict(type=kind, lr=1e-3))
    )
    assert all(stage.grown.optimizer_state for stage in load_config(toy).stages)


def test_a_member_that_is_not_trained_has_no_state(toy):
    toy["chain"][0] |= dict(init="some/folder", iters=0)
    toy["grown"] = dict(optimizer_state=True)
    (fault,) = faults(toy)
    assert re.match(r"chain\.1: grown\.optimizer_state: the member before is not trained", fault)
    toy["chain"][1]["grown"] = None
    load_config(toy)


BY_LENGTH = {0.125: 0.5, 0.5: 1.0}


@pytest.mark.parametrize(
    ("share", "rate"),
    [(0.125, 0.5), (0.25, 0.5**0.5), (0.5, 1.0), (0.01, 0.5), (1.0, 1.0), (3.0, 1.0)],
)
def test_a_rate_by_length_is_a_straight_line_of_logarithms(share, rate):
    """A quarter is as far from an eighth as from a half; beyond the ends the rate stays."""
    assert GrownOptions(lr_mult=BY_LENGTH).rate(share) == pytest.approx(rate)
    as_json = {str(known): value for known, value in reversed(BY_LENGTH.items())}
    assert GrownOptions(lr_mult=as_json).rate(share) == pytest.approx(rate)


def test_one_share_is_the_rate_at_every_length():
    assert [GrownOptions(lr_mult={0.5: 0.7}).rate(share) for share in (0.1, 0.5, 2)] == [0.7] * 3


def test_a_rate_by_length_needs_the_budget_alone(toy):
    toy["chain"][1]["grown"] = dict(lr_mult=BY_LENGTH)
    (fault,) = faults(toy)
    assert re.match(r"chain\.1: grown\.lr_mult gives rates by the share of the budget alone", fault)
    toy["individual"] = dict(iters=32)
    load_config(toy)


@pytest.mark.parametrize("rates", [{}, {0: 1.0}, {0.5: 0}, {0.5: "a"}, {"a": 1.0}, {0.5: True}])
def test_a_rate_by_length_is_of_positive_numbers(toy, rates):
    toy |= dict(individual=dict(iters=32), grown=dict(lr_mult=rates))
    (fault,) = faults(toy)
    assert fault.startswith("grown.lr_mult: ")


def test_a_plan_has_the_rates_of_its_lengths(toy, tmp_path):
    """8 and 6 iterations are a quarter and three sixteenths of 32; read from a file."""
    toy |= dict(individual=dict(iters=32), grown=dict(lr_mult=BY_LENGTH))
    plan = compt.plan(str(config_file(tmp_path, toy)))
    rates = [stage.lr_mult for stage in plan.stages]
    assert rates == pytest.approx([1.0, 0.5**0.5, 0.5 * 1.5**0.5])
    assert "'b' is trained at 0.707 of its own learning rate, on 0.25 of its" in plan_text(plan)
    assert [s.lr_mult for s in compt.plan(toy, individual=True).stages] == [1.0] * 3


RISING = dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.05)
FALLING = dict(type="CosineAnnealingLR", eta_min=0.0, begin=0.05, end=1.0)
LATE = dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.8, end=1.0)


@pytest.mark.parametrize(
    ("schedules", "share", "expected"),
    [
        ([RISING, FALLING], 0.2, [dict(RISING, end=0.2), dict(FALLING, begin=0.2)]),
        ([RISING, FALLING], 0.0, [dict(FALLING, begin=0.0)]),
        ([RISING, LATE], 0.2, [dict(RISING, end=0.2), LATE]),
        ([RISING, LATE], 0, [LATE]),
        (RISING, 0, []),
        ([FALLING], 0, [FALLING]),
        (
            [dict(RISING, begin=0, end=5), dict(FALLING, begin=5), dict(LATE, begin=5.0)],
            0.5,
            [dict(RISING, begin=0, end=0.5), dict(FALLING, begin=0.5), dict(LATE, begin=5.0)],
        ),
    ],
)
def test_a_warm_up_of_another_length_moves_what_follows(schedules, share, expected):
    assert with_warmup(schedules, share) == expected


@pytest.mark.parametrize(
    "schedules",
    [[], [FALLING, RISING], [dict(RISING, begin=0.01)], [LATE], [dict(type="LinearLR")]],
)
def test_a_warm_up_can_be_lengthened_where_there_is_one(toy, schedules):
    toy |= dict(param_scheduler=schedules, grown=dict(warmup=0.2))
    found = faults(toy)
    assert [fault.partition(":")[0] for fault in found] == ["chain.1", "chain.2"]
    assert all("grown.warmup changes how long the warm-up" in fault for fault in found)
    toy["grown"] = dict(warmup=0)
    load_config(toy)


def test_a_warm_up_may_not_take_the_plateau(toy):
    toy |= dict(param_scheduler=[RISING, LATE], grown=dict(warmup=0.9), trunk=True)
    found = faults(toy)
    assert [fault.partition(":")[0] for fault in found] == ["chain.1", "chain.2"]
    assert all("grown.warmup=0.9 leaves no plateau" in fault for fault in found)
    toy["grown"] = dict(warmup=0.7)
    load_config(toy)


@pytest.mark.parametrize("key", ["warmup", "new_warmup"])
@pytest.mark.parametrize("value", [-0.1, 1.5, "a", True])
def test_warm_ups_are_shares_of_the_stage(toy, key, value):
    toy["grown"] = {key: value}
    assert any(fault.startswith(f"grown.{key}: {value!r} is not") for fault in faults(toy))


AVERAGE = dict(type="ema", half_life=0.1)


def test_grown_members_may_keep_the_full_rate_and_deliver_an_average(toy):
    toy |= dict(param_scheduler=[RISING, LATE], trunk=True)
    toy["grown"] = dict(decay=False, average=AVERAGE, warmup=0.0)
    alone = load_config(toy).stages[1]
    assert alone.param_scheduler == [RISING, LATE] and alone.average is None
    assert alone.as_grown.param_scheduler == []
    assert alone.as_grown.average == ExponentialAverage(half_life=0.1)
    plan = compt.plan(toy)
    first, *others = plan.stages
    assert first.plateau_iter < first.iters
    assert all(stage.plateau_iter == stage.iters for stage in others), "all of it is the plateau"
    assert [stage.plateau_iter for stage in compt.plan(toy, individual=True).stages] == [None] * 3


def test_the_average_of_all_members_is_that_of_grown_ones_unless_they_have_their_own(toy):
    toy["average"] = dict(type="mean", begin=0.5)
    assert load_config(toy).stages[1].as_grown.average == MeanAverage(begin=0.5)
    toy["grown"] = dict(average=AVERAGE)
    assert load_config(toy).stages[1].as_grown.average == ExponentialAverage(half_life=0.1)
    assert load_config(toy).stages[0].average == MeanAverage(begin=0.5)


@pytest.mark.parametrize(
    ("schedules", "grown", "told"),
    [
        ([RISING], dict(average=AVERAGE), "and that ends with none"),
        ([], dict(average=AVERAGE), "and that ends with none"),
        (
            [dict(type="ExponentialLR", gamma=0.9), LATE],
            dict(average=AVERAGE),
            "the one before it lets the rate fall too",
        ),
        ([RISING, LATE], {}, "would deliver weights of the full rate. Give an average"),
    ],
)
def test_a_decay_is_left_out_where_there_is_one_and_something_else_to_deliver(
    toy, schedules, grown, told
):
    toy |= dict(param_scheduler=schedules, grown=dict(decay=False, **grown))
    found = faults(toy)
    assert [fault.partition(":")[0] for fault in found] == ["chain.1", "chain.2"]
    assert all(told in fault for fault in found)


def test_without_a_decay_grown_members_need_no_plateau_before_it_but_the_first_does(toy):
    toy |= dict(param_scheduler=[RISING, FALLING], trunk=True)
    toy["grown"] = dict(decay=False, average=AVERAGE)
    (fault,) = faults(toy)
    assert fault.startswith("chain.0.trunk: there is no plateau to grow from, as the decay of")
    toy["chain"][0]["trunk"] = False
    plan = compt.plan(toy)
    assert [stage.plateau_iter for stage in plan.stages] == [
        None,
        *(s.iters for s in plan.stages[1:]),
    ]


def test_an_average_of_grown_members_is_checked_as_any(toy):
    toy["grown"] = dict(average=dict(type="ema", half_life=2.0))
    assert "grown.average.half_life: 2.0 is no fraction of the stage" in "\n".join(faults(toy))
    toy["grown"] = dict(average=dict(type="emma", half_life=0.1))
    assert "type='emma' is not 'ema' or 'mean'" in "\n".join(faults(toy))


def test_a_relative_rate_needs_one_to_be_relative_to(toy):
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW"))
    toy["grown"] = dict(lr_mult=0.5)
    found = faults(toy)
    assert [fault.partition(":")[0] for fault in found] == ["chain.1", "chain.2"]
    assert all("grown.lr_mult needs the member's own learning rate" in fault for fault in found)
    toy["grown"] = dict(lr_mult=1.0, new_lr_mult=0.5)
    load_config(toy)
