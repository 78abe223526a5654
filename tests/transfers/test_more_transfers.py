"""cosine, relation, compose and schedules: contracts, and values worked by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

import compt
from compt import ConfigError, TrainingError, describe
from compt.registry import TRANSFERERS
from compt.testing import TransfererContract
from compt.testing.toy import ToyNet
from compt.transfers.cosine import cosine_distance
from compt.transfers.feature_mse import feature_distance
from compt.transfers.relation import relation_distance


class TestCosine(TransfererContract):
    transfer = dict(type="cosine", schedule="cosine")


class TestRelation(TransfererContract):
    transfer = dict(type="relation", schedule="linear", until=0.9)


class TestCompose(TransfererContract):
    transfer = dict(
        type="compose",
        transfers=[dict(type="cosine", weight=0.5), dict(type="relation", until=0.7)],
    )


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_cosine_by_hand_and_half_of_the_squared_distance():
    assert cosine_distance(rows([1.0, 0.0]), rows([3.0, 4.0])).item() == pytest.approx(0.4)
    one, other = torch.randn(2, 5, 7, dtype=torch.float64).unbind(0)
    assert cosine_distance(one, other).item() == pytest.approx(
        feature_distance(one, other).item() / 2
    )


def test_relation_by_hand():
    """Two orthogonal samples against two equal ones: both pairs differ by 1, of two pairs the mean
    is 1.
    """
    student, teacher = rows([1.0, 0.0], [0.0, 2.0]), rows([1.0, 1.0, 0.0], [5.0, 5.0, 0.0])
    assert relation_distance(student, teacher).item() == pytest.approx(1.0)
    third = rows(
        [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
    )  # cosines 0, r, r with r = sqrt(1/2) against 1, 1, 1
    r = 0.5**0.5
    expected = (1 + 2 * (1 - r) ** 2) / 3
    assert relation_distance(third, torch.ones(3, 4, dtype=torch.float64)).item() == pytest.approx(
        expected
    )


def test_relation_does_not_see_width_scale_or_rotation():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(9, 5, generator=generator, dtype=torch.float64)).Q
    assert relation_distance(features, 3 * features @ rotation.T).item() == pytest.approx(
        0.0, abs=1e-20
    )


def test_relation_of_tokens_is_that_of_their_means():
    tokens = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    other = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    assert relation_distance(tokens, other) == relation_distance(tokens.mean(1), other)


def test_relation_of_one_sample_says_so():
    with pytest.raises(TrainingError, match="the batch has one"):
        relation_distance(rows([1.0]), rows([1.0]))


def bound(config, teacher=6, student=6):
    transfer = TRANSFERERS.build(config)
    arch = describe(ToyNet(16, 1))
    transfer.bind(
        replace(arch, features={"features": teacher}), replace(arch, features={"features": student})
    )
    return transfer


def test_compose_adds_weighted_parts_and_stops_each_at_its_time():
    parts = [
        dict(type="cosine", weight=3.0),
        dict(type="cosine", weight=0.5, until=0.5),
        dict(type="none"),
    ]
    transfer = bound(dict(type="compose", transfers=parts))
    student, teacher = (
        {"features": torch.randn(4, 6, generator=torch.Generator().manual_seed(i))} for i in (0, 1)
    )
    plain = cosine_distance(student["features"], teacher["features"])
    early, late = (transfer(student, teacher, progress=p) for p in (0.2, 0.7))
    assert early == {"cosine": 3.0 * plain, "cosine_2": 0.5 * plain}
    assert late == {"cosine": 3.0 * plain}
    assert transfer.needs == {"features"}
    assert (transfer.strength(0.0), transfer.strength(0.99)) == (1.0, 1.0)


def test_compose_runs_no_teacher_once_all_parts_have_ended(toy, tmp_path):
    parts = [dict(type="cosine", until=0.5), dict(type="relation", until=0.25, schedule="linear")]
    toy["transfer"] = dict(type="compose", transfers=parts)
    plan = compt.plan(toy)
    assert [stage.teacher_iters for stage in plan.stages] == [0, 4, 3]
    toy["transfer"] = dict(
        type="compose", transfers=[dict(type="none"), dict(type="cosine", weight=0.0)]
    )
    assert [stage.teacher_iters for stage in compt.plan(toy).stages] == [0, 0, 0]
    toy["transfer"] = dict(type="compose", transfers=parts)
    folder = compt.train(toy, work_dir=tmp_path / "work")
    flops = json.loads((folder / "02_b" / "manifest.json").read_text())["flops"]
    assert flops["teacher_per_sample"] > 0
    charged = 32 * (8 * flops["student_per_sample"] + 4 * flops["teacher_per_sample"])
    assert flops["total"] == pytest.approx(charged), "four of eight iterations are taught"


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
    ("config", "what"),
    [
        (dict(type="cosine", schedule="up"), "schedule='up' is not known"),
        (dict(type="cosine", weight=-1.0), "a weight is not negative"),
        (dict(type="cosine", until=1.5), "until is between 0 and 1"),
        (dict(type="compose", transfers=[]), "compose has no transfers"),
        (dict(type="compose", transfers=[dict(type="cosin")]), "Did you mean 'cosine'"),
        (dict(type="relation", wieght=1.0), "takes no argument 'wieght'. Did you mean 'weight'"),
    ],
)
def test_bad_options(config, what):
    with pytest.raises((ConfigError, compt.PluginError), match=what):
        TRANSFERERS.build(config)


def test_until_0_is_no_transfer():
    assert TRANSFERERS.build(dict(type="cosine", until=0.0, schedule="cosine")).strength(0.0) == 0.0
