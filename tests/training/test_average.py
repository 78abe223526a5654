"""Train stages that deliver an average of their weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import compt
from compt.errors import ConfigError
from compt.report.format import incident_lines
from compt.report.plan_table import plan_text
from compt.report.record import StageRecord
from compt.testing.toy import ToyNet
from compt.training import loops
from compt.weights import load_weights
from tests.conftest import TOY

PLAIN: dict[str, Any] = dict(
    copy.deepcopy(TOY),
    chain=copy.deepcopy(TOY["chain"][:2]),
    individual=dict(iters=8),
    param_scheduler=[],
)
EMA = dict(PLAIN, average=dict(type="ema", half_life=0.25))
MEAN = dict(PLAIN, average=dict(type="mean", begin=0.6), trunk=True)
"""Over what is there after iterations 5 to 8."""
State = Mapping[str, Tensor]


class Died(BaseException):
    """The process is gone."""


def train(folder: Path, config: Mapping[str, Any], **options: Any) -> Path:
    return compt.train(copy.deepcopy(dict(config)), work_dir=folder, **options)


def record(work: Path, stage: str = "01_a") -> StageRecord:
    return StageRecord.read(work / stage / "manifest.json")


def same(work: Path, other: Path, stage: str, name: str = "weights.safetensors") -> bool:
    return (work / stage / name).read_bytes() == (other / stage / name).read_bytes()


@contextmanager
def recorded() -> Iterator[list[State]]:
    """Collect the trained weights of 01_a after each iteration."""
    step, states = loops.TrainLoop._step, []

    def recording(self, batch):
        step(self, batch)
        if self.runner.work_dir.endswith("01_a"):
            state = self.stage.student.state_dict()
            states.append({name: value.clone() for name, value in state.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops.TrainLoop, "_step", recording)
        yield states


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, list[State]]:
    """A member without an average, and its weights after each iteration."""
    with recorded() as states:
        config = dict(PLAIN, chain=PLAIN["chain"][:1])
        return train(tmp_path_factory.mktemp("plain") / "work", config), states


@pytest.fixture(scope="module", params=["ema", "mean"])
def averaged(request, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    config = {"ema": EMA, "mean": MEAN}[request.param]
    return train(tmp_path_factory.mktemp(request.param) / "work", config), config


def expected(states: list[State], kind: str) -> dict[str, Tensor]:
    """By hand: a half-life of 2 iterations, or the mean of the last four."""
    if kind == "mean":
        return {name: sum(state[name] for state in states[4:]) / 4 for name in states[0]}
    average = dict(states[0])
    for state in states[1:]:
        for name in average:
            average[name] = 0.5**0.5 * average[name] + (1 - 0.5**0.5) * state[name]
    return average


def test_the_average_is_delivered(averaged, plain):
    work, config = averaged
    average = expected(plain[1], config["average"]["type"])
    delivered = load_file(work / "01_a" / "weights.safetensors")
    exported = load_file(work / "01_a" / "export" / "toy.safetensors")
    for name, value in average.items():
        assert torch.allclose(delivered[name], value, rtol=1e-4, atol=1e-6), name
        assert torch.equal(exported[name], delivered[name])
    last = plain[1][-1]["embed.weight"]
    assert not torch.allclose(delivered["embed.weight"], last, rtol=1e-4, atol=1e-6)


def test_training_is_the_same_and_both_are_measured(averaged, plain):
    """What the last weights have is what a stage without an average measures."""
    with_average, without = record(averaged[0]), record(plain[0])
    assert with_average.raw_metrics == without.metrics
    assert with_average.metrics != without.metrics
    assert (with_average.delivered, without.delivered) == ("average", "last")
    assert without.raw_metrics == {}
    assert with_average.metrics == with_average.curve[-1].metrics
    (line,) = incident_lines(with_average)
    assert line.startswith("the weights of the average are delivered, not the last, whose val/")


def test_alone_it_is_the_same(averaged, tmp_path):
    work, config = averaged
    alone = train(tmp_path / "work", dict(config, chain=config["chain"][:1]), individual=True)
    assert same(work, alone, "01_a")
    assert record(alone).raw_metrics == record(work).raw_metrics


def test_the_next_member_grows_from_the_average_or_from_the_trunk(averaged, plain):
    work, config = averaged
    source, grown = ToyNet(8, 1).eval(), ToyNet(16, 2).eval()
    load_weights(grown, work / "02_b" / "grown.safetensors")
    points = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    load_weights(source, work / "01_a" / "weights.safetensors")
    is_trunk = "trunk" in config
    assert torch.allclose(source(points), grown(points), atol=1e-5) != is_trunk
    source.load_state_dict(plain[1][-1])
    assert torch.allclose(source(points), grown(points), atol=1e-5) == is_trunk


def test_a_plan_says_that_the_trunk_is_all_of_the_stage():
    text = plan_text(compt.plan(copy.deepcopy(MEAN)))
    assert "'b' grows from 'a' as it is after iteration 8 of 8, before averaging" in text


def test_an_interrupted_stage_delivers_the_same(averaged, tmp_path, monkeypatch):
    """The checkpoint after 6 iterations holds the average."""
    work, config = averaged
    config = dict(config, chain=config["chain"][:1])
    step = loops.TrainLoop._step

    def dying(self, batch):
        if self._iter == 7:
            raise Died
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loops.TrainLoop, "_step", dying)
        with pytest.raises(Died):
            train(tmp_path / "work", config)
    resumed = train(tmp_path / "work", config, resume=True)
    assert same(work, resumed, "01_a")
    assert record(resumed).raw_metrics == record(work).raw_metrics


def test_two_averages_are_refused(tmp_path):
    config = dict(EMA, custom_hooks=[dict(type="EMAHook")])
    with pytest.raises(ConfigError, match="a stage delivers one average"):
        train(tmp_path / "work", config)
