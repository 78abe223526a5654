"""Schedules and times are those of every transfer, and bad options are refused."""

from __future__ import annotations

import math

import pytest

import compt
from compt import ConfigError
from compt.registry import TRANSFERERS


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [2.0, 2.0, 2.0, 0.0, 0.0]),
        ("linear", [2.0, 1.0, 0.5, 0.0, 0.0]),
        ("cosine", [2.0, 1.0, 1 + math.cos(0.75 * math.pi), 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("kind", ["feature_mse", "logit_kl", "cosine", "relation"])
def test_schedules(kind, schedule, expected):
    transfer = TRANSFERERS.build(dict(type=kind, weight=2.0, until=0.8, schedule=schedule))
    assert [transfer.strength(p) for p in (0.0, 0.4, 0.6, 0.8, 1.0)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="cosine", schedule="up"), "schedule: 'up' is none of"),
        (dict(type="cosine", weight=-1.0), "a weight is not negative"),
        (dict(type="cosine", until=1.5), "until is between 0 and 1"),
        (dict(type="compose", transfers=[]), "compose has no transfers"),
        (dict(type="compose", transfers=[dict(type="cosin")]), "Did you mean 'cosine'"),
        (dict(type="relation", wieght=1.0), "takes no argument 'wieght'. Did you mean 'weight'"),
    ],
)
def test_bad_options(config, message):
    with pytest.raises((ConfigError, compt.PluginError), match=message):
        TRANSFERERS.build(config)


def test_until_0_is_no_transfer():
    assert TRANSFERERS.build(dict(type="cosine", until=0.0, schedule="cosine")).strength(0.0) == 0.0
