"""The performance options of a config, for the chain and for a stage."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from compt.config import load_config
from compt.config.options import PerformanceOptions
from compt.training.performance import ATTENTIONS, PRECISIONS, Performance
from tests.config.conftest import faults

GIVEN = dict(
    precision="bf16",
    attention="flash",
    grad_checkpointing=True,
    compile=dict(mode="reduce-overhead"),
)


@pytest.fixture(params=["chain", "chain.1"])
def place(request, toy):
    """Where a switch may be given: the name before its key, and what to write it into."""
    return ("", toy) if request.param == "chain" else ("chain.1.", toy["chain"][1])


def test_every_switch_is_a_key_of_the_chain_and_of_a_stage(toy):
    default, other = PerformanceOptions(), PerformanceOptions(**GIVEN)
    assert all(stage.performance == default for stage in load_config(toy).stages)
    assert [stage.performance for stage in load_config({**toy, **GIVEN}).stages] == [other] * 3
    toy["chain"][1] |= GIVEN
    assert [stage.performance for stage in load_config(toy).stages] == [default, other, default]
    assert Performance(**other.to_dict()).to_dict() == GIVEN


def test_every_choice_of_a_key_is_at_work():
    keys = PerformanceOptions.all_keys()
    assert set(get_args(keys["precision"].annotation)) == set(PRECISIONS)
    assert set(get_args(keys["attention"].annotation)) == set(ATTENTIONS)


def test_a_stage_overrides_one_switch_and_keeps_the_others(toy):
    toy |= GIVEN
    toy["chain"][1] |= dict(precision="fp32", grad_checkpointing=False)
    toy["chain"][2] |= dict(attention="auto", compile=False)
    _, b, c = (stage.performance for stage in load_config(toy).stages)
    assert b == PerformanceOptions(**{**GIVEN, "precision": "fp32", "grad_checkpointing": False})
    assert c == PerformanceOptions(**{**GIVEN, "attention": "auto", "compile": False})


def test_none_in_a_stage_is_the_default_again(toy):
    toy |= GIVEN
    toy["chain"][1] |= dict.fromkeys(GIVEN)
    assert load_config(toy).stages[1].performance == PerformanceOptions()


def test_switches_are_options_of_the_command_line(toy):
    config = load_config(
        toy, {"precision": "bf16", "chain.2.precision": "fp32", "chain.2.compile": True}
    )
    assert [stage.precision for stage in config.stages] == [
        "bf16",
        "bf16",
        "fp32",
    ]
    assert config.stages[2].compile is True


@pytest.mark.parametrize(
    "value", [True, False, {}, dict(backend="aot_eager"), dict(fullgraph=True, dynamic=False)]
)
def test_compile_takes_true_false_and_options_of_torch(place, toy, value):
    place[1]["compile"] = value
    assert load_config(toy).stages[1].performance == PerformanceOptions(compile=value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("precision", "BF16", r"'BF16' is none of 'fp32', 'bf16'\. Did you mean 'bf16'\?"),
        ("precision", "bfloat16", "Did you mean 'bf16'"),
        ("precision", "fp16", "Did you mean 'bf16'"),
        ("precision", 16, "16 is none of"),
        ("precision", True, "True is none of"),
        ("precision", ["bf16"], r"\['bf16'\] is none of"),
        ("precision", dict(type="bf16"), "is none of"),
        ("attention", "falsh", r"'falsh' is none of 'auto', 'flash', .*Did you mean 'flash'\?"),
        ("attention", "sdpa", "'sdpa' is none of"),
        ("attention", False, "False is none of"),
        ("grad_checkpointing", "yes", "'yes' is not True or False"),
        ("grad_checkpointing", 1, "1 is not True or False"),
        ("grad_checkpointing", {}, r"\{\} is not True or False"),
        ("compile", "inductor", "'inductor' is not True or False or a dict"),
        ("compile", 1, "1 is not True or False or a dict"),
        (
            "compile",
            dict(bakend="eager"),
            r"'bakend' is no option of torch\.compile\. Did you mean 'backend'\?",
        ),
        ("compile", dict(model=None), "'model' is no option"),
    ],
)
def test_a_wrong_value_is_one_fault_where_it_stands(place, toy, key, value, message):
    where, target = place
    target[key] = value
    (fault,) = faults(toy)
    assert fault.startswith(f"{where}{key}: ")
    assert re.search(message, fault)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("precison", "precision"),
        ("attn", "attention"),
        ("grad_checkpoint", "grad_checkpointing"),
        ("gradient_checkpointing", "grad_checkpointing"),
        ("compiled", "compile"),
    ],
)
def test_a_misspelt_switch_is_named(place, toy, key, near):
    where, target = place
    target[key] = True
    (fault,) = faults(toy)
    assert fault.startswith(f"{where}{key} is not a key")
    assert f"Did you mean '{near}'" in fault


def test_the_debugging_compiler_does_not_recompute(toy):
    """It draws dropout anew in the backward pass; torch's real compilers do not."""
    toy |= dict(compile=dict(backend="eager"))
    load_config(toy)
    toy["chain"][1]["grad_checkpointing"] = True
    (fault,) = faults(toy)
    assert re.match(r"chain\.1: .*'eager'.*'aot_eager'", fault)
