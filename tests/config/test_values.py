"""Faults of a config: all at once, with the nearest names."""

from __future__ import annotations

import math
import re

import pytest

from compt.config import load_config
from compt.config.options import IndividualBudget
from tests.config.conftest import faults


def test_every_fault_is_reported_at_once_with_the_nearest_name():
    config = dict(
        paradigm=dict(type="toy", sample=3),
        gower=dict(type="lossless"),
        chain=[
            dict(name="a b", modl=dict(width=8), iters=1),
            dict(name="c", model=dict(width=8), iters=2, epochs=1, grower=dict(type="lossles")),
            dict(
                name="c",
                model=dict(width=9),
                samples=-5,
                transfer=dict(type="feature_mse", wieght=2),
            ),
        ],
        checkpoint=dict(intervall=5),
        individual=dict(epoch=3),
        seed=-1,
    )
    expected = [
        r"gower is not a key.*'grower'",
        r"chain\.0\.modl is not a key.*'model'",
        r"chain\.0\.name: 'a b'",
        r"chain\.0\.model is missing",
        r"chain\.1 needs exactly one of epochs, iters, samples.*epochs.*iters",
        r"chain\.2\.samples: -5 ",
        r"'c' is used 2 times",
        r"paradigm: .*'sample'.*'samples'",
        r"chain\.1\.grower: .*'lossles'.*'lossless'",
        r"chain\.2\.transfer: .*'wieght'.*'weight'",
        r"individual\.epoch is not a key.*\'epochs\'",
        r"checkpoint\.intervall is not a key.*'interval'",
        r"seed: -1 ",
    ]
    found = faults(config)
    for pattern in expected:
        assert sum(bool(re.search(pattern, fault)) for fault in found) == 1, (pattern, found)
    assert len(found) == len(expected)


def test_a_name_that_is_near_nothing_gets_no_suggestion(toy):
    (fault,) = faults({**toy, "zzzz": 1})
    assert "zzzz" in fault
    assert "mean" not in fault


def test_an_unknown_plugin_lists_what_there_is(toy):
    toy["paradigm"] = dict(type="tyo")
    (fault,) = faults(toy)
    assert re.search(
        r"No paradigm named 'tyo'\. Did you mean 'toy'\?.*clip.*compt\.paradigms", fault
    )


@pytest.mark.parametrize("key", ["paradigm", "chain"])
def test_paradigm_and_chain_are_needed(toy, key):
    del toy[key]
    assert faults(toy) == [f"{key} is missing."]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(), "none"),
        (dict(epochs=None), "none"),
        (dict(epochs=1, samples=5), r"epochs.*samples"),
        (dict(iters=0), "0 is not a positive"),
        (dict(iters=-1), "-1 is not a positive"),
        (dict(iters=True), "True is not a positive"),
        (dict(iters="8"), "'8' is not a positive"),
        (dict(iters=[8]), r"\[8\] is not a positive"),
        (dict(iters=math.inf), "inf"),
        (dict(epochs=math.nan), "nan"),
        (dict(iters=0.5), r"0\.5"),
    ],
)
def test_a_stage_has_exactly_one_positive_budget(toy, given, message):
    del toy["chain"][1]["iters"]
    toy["chain"][1] |= given
    (fault,) = faults(toy)
    assert re.match(r"chain\.1\b", fault)
    assert re.search(message, fault)


@pytest.mark.parametrize("budget", [("epochs", 0.5), ("iters", 3), ("samples", 1e6)])
def test_budgets_are_kept_as_given(toy, budget):
    del toy["chain"][1]["iters"]
    toy["chain"][1][budget[0]] = budget[1]
    assert load_config(toy).stages[1].amount == budget


def test_only_the_first_member_starts_from_a_checkpoint(toy):
    toy["chain"][1]["init"] = "some/folder"
    (fault,) = faults(toy)
    assert re.match(r"chain\.1\.init: only the first member", fault)


def test_only_a_given_member_may_have_a_budget_of_zero(toy):
    toy["chain"][0] |= dict(init="some/folder", iters=0)
    assert load_config(toy).stages[0].amount == ("iters", 0)
    assert load_config(toy).stages[0].init == "some/folder"
    del toy["chain"][0]["init"]
    assert len(faults(toy)) == 1


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", ".a", "-a", "a\n", "ü", None])
def test_a_name_that_cannot_be_a_folder_is_refused(toy, name):
    toy["chain"][1]["name"] = name
    (fault,) = faults(toy)
    assert fault.startswith("chain.1.name")


@pytest.mark.parametrize("name", ["b", "ViT-B_16.v2", "7b"])
def test_usual_names_are_accepted(toy, name):
    toy["chain"][1]["name"] = name
    assert load_config(toy).stages[1].member.name == name


@pytest.mark.parametrize("chain", [5, dict(name="a"), [5], ["a"], [[]]])
def test_a_chain_is_a_list_of_dicts(toy, chain):
    toy["chain"] = chain
    (fault,) = faults(toy)
    assert fault.startswith("chain must be a list")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paradigm", 5),
        ("paradigm", dict(samples=8)),
        ("grower", 5),
        ("transfer", dict(weight=1.0)),
        ("seed", 1.5),
        ("evaluations", 0),
        ("evaluations", True),
        ("checkpoint", 5),
        ("checkpoint", dict(interval=0)),
        ("checkpoint", dict(keep="2")),
        ("train_dataloader", 5),
        ("train_dataloader", dict(batch_size=0)),
        ("work_dir", 5),
        ("custom_imports", 5),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_fault(toy, key, value):
    toy[key] = value
    assert any(fault.startswith(key) for fault in faults(toy))


@pytest.mark.parametrize(
    "value", [5, dict(batch_size=0), dict(batch_size=-8), dict(batch_size="32")]
)
def test_a_stage_loader_is_checked_like_the_chains(toy, value):
    toy["chain"][1]["train_dataloader"] = value
    (fault,) = faults(toy)
    assert "train_dataloader" in fault
    assert "chain.1" in fault


# Budgets of members trained alone

BUDGETS = (dict(budget="chain"), dict(epochs=2.5), dict(iters=7), dict(samples=640))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        *((given, IndividualBudget(**given)) for given in BUDGETS),
    ],
)
def test_the_individual_budget(toy, given, kept):
    assert load_config({**toy, "individual": given}).individual == kept


@pytest.mark.parametrize(
    "given",
    [
        "chain",
        5,
        dict(),
        dict(epoch=3),
        dict(budget="own"),
        dict(budget="chain", epochs=3),
        dict(epochs=1, iters=2),
        dict(iters=0),
        dict(iters=-3),
        dict(iters=True),
    ],
)
def test_other_individual_budgets_are_faults(toy, given):
    (fault,) = faults({**toy, "individual": given})
    assert fault.startswith("individual")


def test_a_class_in_place_of_a_name_is_refused(toy):
    """As a string it could not be written into the work folder, and not be resumed from."""
    from compt.growers.clone import Clone

    toy["grower"] = dict(type=Clone)
    (fault,) = faults(toy)
    assert fault.startswith(
        "grower: type is the class compt.growers.clone:Clone; register it and write its"
    )
