"""One learning rate for all sizes: the key, and what it cannot go with."""

from __future__ import annotations

import pytest

import compt
from compt.config import load_config
from compt.config.rates_by_width import RatesByWidth
from compt.report.plan_table import plan_text
from tests.config.conftest import faults


def bases(config, options=None) -> list[str | None]:
    own = [stage.rates_by_width for stage in load_config(config, options).stages]
    return [rates and rates.base for rates in own]


def planned(config, **options) -> list[str]:
    text = plan_text(compt.plan(config, **options))
    return [line for line in text.splitlines() if line.startswith("rates by width")]


def test_by_default_all_parameters_have_the_rate_as_written(toy):
    assert [stage.rates_by_width for stage in load_config(toy).stages] == [None] * 3
    assert [stage.width_rates for stage in compt.plan(toy).stages] == [None] * 3
    assert not planned(toy)


def test_a_stage_has_another_base_than_the_chain_or_none(toy):
    toy["rates_by_width"] = dict(base="b")
    toy["chain"][1]["rates_by_width"] = dict()
    toy["chain"][2]["rates_by_width"] = None
    a, b, c = (stage.rates_by_width for stage in load_config(toy).stages)
    assert (a, b, c) == (RatesByWidth("b"), RatesByWidth(), None)
    a, b, c = (stage.width_rates for stage in compt.plan(toy).stages)
    assert (a.base, {*a.factors.values()}) == ("b", {2.0})
    assert (b.base, {*b.factors.values()}) == ("a", {0.5})
    assert c is None
    assert bases(toy, {"rates_by_width.base": "c"}) == ["c", None, None]


def test_a_member_has_the_same_rates_grown_and_alone(toy):
    toy["rates_by_width"] = dict(base="b")
    lines = [
        "rates by width, relative to 'b': 'a' has parameters 3 x 2, 9 x 1",
        "rates by width, relative to 'b': 'c' has parameters 7 x 0.667, 17 x 1",
    ]
    grown, alone = (compt.plan(toy, individual=mode) for mode in (False, True))
    assert planned(toy) == planned(toy, individual=True) == lines
    assert [s.width_rates for s in grown.stages] == [s.width_rates for s in alone.stages]


def test_the_plan_as_json_has_the_rates(toy):
    toy["rates_by_width"] = dict()
    rates = compt.plan(toy).to_dict()["stages"][1]["width_rates"]
    assert rates["base"] == "a"
    assert rates["factors"]["head.weight"] == 0.5


def test_what_leaves_no_rates_by_width_is_told_once_for_all_members(toy):
    toy["rates_by_width"] = dict(base="aa")
    toy["optim_wrapper"] = dict(constructor="DefaultOptimWrapperConstructor")
    toy["param_scheduler"] = [
        dict(type="CosineAnnealingLR", eta_min=1e-5),
        dict(type="CosineAnnealingMomentum", eta_min=0.8),
        dict(type="ReduceOnPlateauLR", monitor="val/loss", min_value=1e-6),
    ]
    base, constructor, cosine, plateau = faults(toy)
    assert base.startswith("rates_by_width.base: 'aa' is no member of the chain, which has 'a', ")
    assert "optim_wrapper.constructor='DefaultOptimWrapperConstructor' both say" in constructor
    assert "eta_min=1e-05 of CosineAnnealingLR in param_scheduler is one for all" in cosine
    assert "min_value=1e-06 of ReduceOnPlateauLR" in plateau


@pytest.mark.parametrize(
    "schedule",
    [
        dict(type="CosineAnnealingLR", eta_min=0.0),
        dict(type="CosineAnnealingLR", eta_min_ratio=0.1),
        dict(type="CosineAnnealingParamScheduler", param_name="weight_decay", eta_min=0.01),
    ],
)
def test_schedules_in_shares_of_the_rate_are_taken(toy, schedule):
    toy |= dict(rates_by_width=dict(), param_scheduler=[schedule])
    assert bases(toy) == [None] * 3


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (True, "rates_by_width: True is not a dict."),
        (dict(base=3), "rates_by_width.base: 3 is not a string."),
        (dict(bas="a"), "rates_by_width.bas is not a key of compt. Did you mean 'base'?"),
    ],
)
def test_a_value_of_another_kind_is_refused(toy, value, fault):
    assert faults(dict(toy, rates_by_width=value)) == [fault]
