"""Plans: what is refused or warned about, plain types, and no side effects."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import compt
from compt.config import load_config
from compt.errors import ConfigError, GrowthError
from tests.conftest import config_file
from tests.planning.conftest import little_memory, refused, stages

# Refused


def test_members_have_to_ascend(toy):
    toy["chain"][1]["model"] = dict(width=8, depth=1)
    refused(toy, ConfigError, "not in ascending size", "474")


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        (dict(width=8, depth=3), dict(width=24, depth=2), "shrink from 3 to 2 blocks"),
        (dict(width=20, depth=1), dict(width=16, depth=4), "'embed' would shrink from 20 to 16"),
        (
            dict(width=8, depth=1, rms=True),
            dict(width=16, depth=1),
            "no tensor that could grow into",
        ),
    ],
)
def test_what_cannot_be_grown_into_is_refused(toy, small, large, message):
    toy["chain"] = [dict(name="a", model=small, iters=4), dict(name="b", model=large, iters=4)]
    refused(toy, GrowthError, message)
    toy["grower"] = dict(type="scratch")
    assert stages(toy)[1].grower == "scratch"


def test_a_transfer_names_the_outputs_there_are(toy):
    toy["chain"][1]["transfer"] = dict(type="feature_mse", features=["featurs"])
    refused(toy, ConfigError, "feature_mse", "featurs", "features", "logits")


def test_any_output_with_a_width_can_be_transferred(toy):
    toy["transfer"] = dict(type="feature_mse", features=["logits"])
    assert [s.transfer for s in stages(toy)] == [None, "feature_mse", "feature_mse"]


def test_all_hops_are_checked_before_one_is_reported(toy):
    toy["chain"][1]["transfer"] = dict(type="feature_mse", features=["nope"])
    toy["chain"][2]["model"] = dict(width=16, depth=1)
    refused(toy, ConfigError, "'a' -> 'b'", "nope", "'b' -> 'c'", "not in ascending size")


def test_a_model_that_cannot_be_built_is_named(toy):
    toy["chain"][1]["model"] = dict(widht=16)
    with pytest.raises(ConfigError, match=r"member 'b'.*widht"):
        compt.plan(toy)


# Warned about


@pytest.mark.parametrize(
    ("width", "depth", "params", "growth"),
    [(8, 3, 1066, None), (9, 1, 568, "1.2x"), (16, 2, 2554, "5.4x")],
)
def test_neighbours_should_differ_by_two_to_four_times(toy, width, depth, params, growth):
    toy["chain"] = toy["chain"][:2]
    toy["chain"][1]["model"] = dict(width=width, depth=depth)
    plan = compt.plan(toy)
    assert [s.params for s in plan.stages] == [474, params]
    said = [w for w in plan.warnings if w.startswith("'a' -> 'b' grows ")]
    assert [w.split()[4] for w in said] == ([growth] if growth else [])


def test_samples_should_fall_along_the_chain(toy):
    toy["chain"][2]["iters"] = 9
    (said,) = [w for w in compt.plan(toy).warnings if "samples" in w]
    assert said.startswith("'c' sees more samples")
    assert compt.plan(toy).to_dict()["warnings"] == list(compt.plan(toy).warnings)


# Plain types, no side effects


def test_a_plan_is_json(toy):
    for individual in (False, True):
        table = compt.plan(toy, individual=individual).to_dict()
        assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_plan_of_nothing_to_do_is_json(toy):
    toy["chain"] = [toy["chain"][0] | dict(init="some/folder", iters=0)]
    table = compt.plan(toy).to_dict()
    assert (table["flops"], table["acceleration"], table["stages"][0]["share"]) == (0, None, 0)
    json.dumps(table, allow_nan=False)


def test_planning_changes_neither_config_nor_random_state(toy):
    before, state = copy.deepcopy(toy), torch.get_rng_state()
    compt.plan(toy)
    assert toy == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_path_a_dict_and_a_checked_config_give_the_same_plan(toy, tmp_path):
    file = config_file(tmp_path, toy)
    assert compt.plan(str(file)) == compt.plan(toy) == compt.plan(load_config(file))


# Memory


def test_little_memory_is_a_limit():
    with little_memory(2**28), pytest.raises((MemoryError, RuntimeError)):
        torch.empty(2**28)


def test_planning_allocates_no_weights(toy):
    compt.plan(toy)  # what is imported on the way is not counted
    # 4 blocks of 4 w^2 weights: 26e9 parameters, 102 GB
    models = [dict(width=20_000, depth=4), dict(width=40_000, depth=4)]
    toy["chain"] = [dict(name=n, model=m, iters=10) for n, m in zip("ab", models)]
    with little_memory(2**28):
        plan = compt.plan(toy)
    assert plan.stages[1].params == pytest.approx(4 * 4 * 40_000**2, rel=1e-3)
    assert (
        plan.stages[1].student_flops
        == 3 * (2 * 8 * 40_000 + 4 * 8 * 40_000**2 + 2 * 40_000 * 10) - 16 * 40_000
    )
