"""What a stage, or an option on the command line, changes of a config."""

from __future__ import annotations

import re

import pytest
from mmengine.config import Config

from compt.config import load_config
from compt.config.options import CheckpointOptions
from compt.errors import ConfigError
from tests.config.conftest import TEXT, faults, write


def test_a_stage_overrides_grower_and_transfer_whole(toy):
    toy["transfer"] = dict(type="feature_mse", weight=0.3, until=0.5)
    toy["chain"][1] |= dict(grower="scratch", transfer=dict(type="feature_mse", weight=2.0))
    toy["chain"][2]["transfer"] = None
    _, b, c = load_config(toy).stages
    assert (b.grower, c.grower) == ({"type": "scratch"}, {"type": "lossless"})
    assert b.transfer == {"type": "feature_mse", "weight": 2.0}  # 'until' is not inherited
    assert c.transfer == {"type": "compt:none"}


def test_growth_and_transfer_are_by_default_what_the_study_found_to_pay(toy):
    del toy["grower"], toy["transfer"]
    stage = load_config(toy).stages[1]
    assert (stage.grower, stage.transfer) == ({"type": "compt:lossless"}, {"type": "compt:none"})


def test_a_stage_changes_only_the_keys_it_names(toy):
    toy["optim_wrapper"] = dict(
        optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98)),
        clip_grad=dict(max_norm=1.0, norm_type=2),
    )
    toy["train_dataloader"] = dict(batch_size=32, num_workers=1)
    toy["chain"][1] |= dict(
        optim_wrapper=dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=3.0)),
        train_dataloader=dict(batch_size=16),
    )
    a, b, c = load_config(toy).stages
    assert b.optim_wrapper == dict(
        optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.98)),
        clip_grad=dict(max_norm=3.0, norm_type=2),
    )
    assert b.train_dataloader == dict(batch_size=16, num_workers=1)
    for other in (a, c):
        assert other.optim_wrapper["optimizer"]["lr"] == 1e-3
        assert other.optim_wrapper["clip_grad"]["max_norm"] == 1.0
        assert other.train_dataloader == dict(batch_size=32, num_workers=1)


@pytest.mark.parametrize("chain", [{}, dict(optim_wrapper=dict(clip_grad=dict(max_norm=1.0)))])
def test_a_stage_that_changes_the_rate_keeps_the_default_optimizer(toy, chain):
    toy |= chain
    toy["chain"][1]["optim_wrapper"] = dict(optimizer=dict(lr=5e-4))
    a, b, _ = load_config(toy).stages
    assert b.optim_wrapper["optimizer"] == {**a.optim_wrapper["optimizer"], "lr": 5e-4}
    assert b.optim_wrapper.get("clip_grad") == a.optim_wrapper.get("clip_grad")


def test_a_change_of_type_replaces_the_dict(toy):
    toy["optim_wrapper"] = dict(
        optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98)), clip_grad=dict(max_norm=1.0)
    )
    toy["chain"][1]["optim_wrapper"] = dict(optimizer=dict(type="SGD", lr=0.1))
    toy["chain"][2]["optim_wrapper"] = dict(
        optimizer=dict(type="AdamW", lr=0.2)
    )  # the same type: merged
    _, b, c = (stage.optim_wrapper for stage in load_config(toy).stages)
    assert b == dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=1.0))
    assert c["optimizer"] == dict(type="AdamW", lr=0.2, betas=(0.9, 0.98))


def test_delete_replaces_as_in_mmengine(toy):
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lr=1e-3), clip_grad=dict(max_norm=1.0))
    toy["chain"][1]["optim_wrapper"] = dict(_delete_=True, optimizer=dict(type="AdamW", lr=0.2))
    assert load_config(toy).stages[1].optim_wrapper == dict(optimizer=dict(type="AdamW", lr=0.2))


def test_a_list_of_schedules_is_replaced(toy):
    toy["chain"][1]["param_scheduler"] = [dict(type="ConstantLR", factor=1.0)]
    a, b, _ = (stage.param_scheduler for stage in load_config(toy).stages)
    assert [s["type"] for s in a] == ["LinearLR", "CosineAnnealingLR"]
    assert b == [dict(type="ConstantLR", factor=1.0)]


def test_defaults_fill_what_a_dict_leaves_out(toy):
    toy["train_dataloader"] = dict(num_workers=3)
    toy["checkpoint"] = dict(keep=5)
    config = load_config(toy)
    assert config.stages[0].train_dataloader == dict(batch_size=128, num_workers=3)
    assert config.checkpoint == CheckpointOptions(interval=500, keep=5)
    assert config.stages[0].optim_wrapper["optimizer"]["type"] == "AdamW"


def test_an_optimizer_is_there_even_if_only_clipping_is_configured(toy):
    toy["optim_wrapper"] = dict(clip_grad=dict(max_norm=1.0))
    wrapper = load_config(toy).stages[0].optim_wrapper
    assert wrapper["clip_grad"] == dict(max_norm=1.0)
    assert wrapper["optimizer"]["type"] == "AdamW"


# --cfg-options


def test_an_option_changes_one_key_of_one_stage(toy):
    config = load_config(
        toy, {"chain.1.iters": 9, "seed": 3, "paradigm.samples": 64, "grower": "scratch"}
    )
    assert [s.amount for s in config.stages] == [("iters", 8), ("iters", 9), ("iters", 6)]
    assert config.stages[1].member.model == dict(width=16, depth=2)
    assert (config.seed, config.paradigm) == (3, dict(type="toy", samples=64))
    assert config.stages[1].grower == {"type": "scratch"}


def test_an_option_that_gives_a_second_budget_says_so(toy):
    (fault,) = faults(toy, {"chain.1.epochs": 9})
    assert re.search(r"chain\.1 .*epochs.*iters", fault)
    config = load_config(toy, {"chain.1.epochs": 9, "chain.1.iters": None})
    assert config.stages[1].amount == ("epochs", 9)


def test_a_misspelt_option_is_a_fault(toy):
    assert re.match(r"chain\.1\.itres is not a key.*'iters'", faults(toy, {"chain.1.itres": 9})[0])
    assert re.match(r"sed is not a key.*'seed'", faults(toy, {"sed": 9})[0])


@pytest.mark.parametrize(
    "options",
    [
        {"chain.7.iters": 9},
        {"chain.b.iters": 9},
        {"chain.-1.iters": 9},
        {"chain.1": 9},
        {"chain.0.iters.x": 9},
        {"paradigm.type.x": 9},
        {"chain": 9},
        {"": 1},
    ],
)
def test_options_that_do_not_fit_are_refused(toy, options):
    with pytest.raises(ConfigError):
        load_config(toy, options)


def test_an_option_for_a_helper_variable_is_refused(tmp_path):
    # the file has been evaluated by then: the option would have no effect
    file = write(tmp_path / "c.py", "_width = 8" + TEXT.replace("width=8", "width=_width"))
    assert load_config(file).stages[0].member.model == dict(width=8)
    with pytest.raises(ConfigError, match="width"):
        load_config(file, {"_width": 16})


def test_the_callers_config_is_left_alone(toy):
    config = Config(toy)
    before = config.to_dict()
    load_config(config, {"chain.1.iters": 9, "seed": 3})
    assert config.to_dict() == before
    load_config(toy, {"chain.1.iters": 9})
    assert toy["chain"][1]["iters"] == 8
