"""A probe keeps the growers' contract, and hands on what the best grower made, untouched."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import compt
from compt import ConfigError, GrowthError, grow
from compt.growth.run import build_grower
from compt.report.format import growth_text
from compt.report.growth import GrowthReport
from compt.report.record import StageRecord
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet

GROWERS = ["lossless", dict(type="clone", noise=0.5)]


class TestProbe(GrowerContract):
    grower = dict(type="probe", growers=GROWERS, steps=2, held_out=1)


class Batches:
    """An objective with a known loss a grower's weights, which notes the batches."""

    def __init__(self, target: ToyNet, losses: dict[str, float]) -> None:
        self.target, self.losses, self.at = target, losses, 0
        self.seen: list[int] = []

    def restart(self) -> None:
        self.at = 0

    def __call__(self, params) -> torch.Tensor:
        self.seen.append(self.at)
        self.at += 1
        # clone and scratch differ in a bias, which steps of 1e-9 leave as it is
        kind = "clone" if torch.allclose(params["embed.bias"], self.cloned) else "scratch"
        return self.losses[kind] + 0 * params["embed.bias"].sum()


def probed(losses: dict[str, float]):
    source, target = randomised(ToyNet(8, 1)), ToyNet(16, 2)
    objective = Batches(target, losses)
    objective.cloned = torch.cat([source.embed.bias] * 2).detach()
    grower = dict(type="probe", growers=["scratch", "clone"], steps=3, held_out=2, lr=1e-9)
    return source, target, objective, grow(source, target, grower, seed=5, objective=objective)


def test_the_best_is_kept_as_it_was_grown():
    source, target, objective, growth = probed({"clone": 1.0, "scratch": 2.0})
    alone = ToyNet(16, 2)
    alone.load_state_dict(target.state_dict())
    grow(source, alone, "clone", seed=5)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, target.state_dict()[name])
    assert objective.seen == [0, 1, 2, 3, 4] * 2
    assert growth.function_preserving
    rows = growth.details["probe"]
    assert [(row["grower"], row["held_out_loss"]) for row in rows] == [
        ("scratch", 2.0),
        ("clone", 1.0),
    ]


def test_a_loss_that_is_no_number_loses():
    *_, growth = probed({"clone": math.nan, "scratch": 2.0})
    assert growth.counts["initialised"] > 10
    assert growth.details["probe"][1]["held_out_loss"] is None
    report = GrowthReport.from_json({**growth.to_dict(), "grower": "probe"})
    assert "by held-out loss: scratch 2, clone inf" in growth_text(report)
    assert GrowthReport.from_json(report.to_json()) == report
    with pytest.raises(GrowthError, match="no grower has a finite loss after 3 steps"):
        probed({"clone": math.nan, "scratch": math.inf})


def test_a_chain_is_charged_for_every_batch(toy, tmp_path):
    toy["grower"] = dict(type="probe", growers=GROWERS, steps=3, held_out=2, lr=1e-2)
    toy["chain"] = toy["chain"][:2]
    plan = compt.plan(copy.deepcopy(toy)).stages[1]
    assert plan.growth_iters == 10
    work = compt.train(copy.deepcopy(toy), work_dir=tmp_path / "work")
    record = StageRecord.read(work / "02_b" / "manifest.json")
    assert record.flops.growth == plan.growth_flops > 0
    names = [name for name, _, _ in record.growth.probed]
    assert sorted(names) == ["clone(noise=0.5)", "lossless"]
    assert all(math.isfinite(held_out) for _, _, held_out in record.growth.probed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(growers=["clone"]), "1 growers leave nothing to choose from"),
        (dict(growers=["clone", "clone"]), "A grower stands twice"),
        (dict(growers=["clone", dict(type="stack", order="up")]), "growers.1.order: 'up' is none"),
        (dict(growers=GROWERS, steps=0), "steps: 0 is not"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        build_grower(dict(type="probe", **options))


def test_a_pair_that_one_cannot_grow_is_refused_by_its_name():
    grower = dict(type="probe", growers=["clone", "stack"], steps=1)
    with pytest.raises(GrowthError, match="stack of probe: The grower stack grows depth only"):
        grow(ToyNet(8, 1), ToyNet(16, 1), grower)
