"""Train chains whose grown members never decay, but deliver an average."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import compt
from compt.report.plan_table import plan_text
from compt.report.record import StageRecord
from compt.training import loops
from tests.conftest import TOY

WARMUP = dict(type="LinearLR", start_factor=1e-3, begin=0, end=2)
DECAY = dict(type="CosineAnnealingLR", eta_min=0.0, begin=5, end=8)
AVERAGE = dict(type="ema", half_life=3)
SHARED: dict[str, Any] = dict(TOY, param_scheduler=[WARMUP, DECAY], trunk=True)
PLATEAUS = dict(
    SHARED,
    grown=dict(decay=False, average=AVERAGE, warmup=0.0, optimizer_state=True),
)
STAGES = ("01_a", "02_b", "03_c")


class Died(BaseException):
    """The process is gone."""


def train(folder: Path, config: Mapping[str, Any], **options: Any) -> Path:
    return compt.train(copy.deepcopy(dict(config)), work_dir=folder, **options)


def written(work: Path, name: str = "weights.safetensors") -> list[bytes]:
    return [(work / stage / name).read_bytes() for stage in STAGES]


@pytest.fixture(scope="module")
def plateaus(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("plateaus") / "work", PLATEAUS)


def test_grown_members_are_trained_as_if_their_stages_had_no_decay(plateaus, tmp_path):
    """To the byte: what is delivered, and what is grown from."""
    config = copy.deepcopy(dict(SHARED, grown=dict(warmup=0.0, optimizer_state=True)))
    for stage in config["chain"][1:]:
        stage |= dict(param_scheduler=[WARMUP], average=AVERAGE)
    spelled_out = train(tmp_path / "work", config)
    for name in ("weights.safetensors", "plateau.safetensors"):
        assert written(plateaus, name) == written(spelled_out, name)
    decayed = train(tmp_path / "decayed", dict(SHARED, grown=dict(PLATEAUS["grown"], decay=True)))
    assert written(decayed)[0] == written(plateaus)[0]
    assert written(decayed)[1] != written(plateaus)[1]


def test_members_alone_keep_their_decay_and_deliver_their_last_weights(plateaus, tmp_path):
    alone = train(tmp_path / "with", PLATEAUS, individual=True)
    assert written(alone) == written(train(tmp_path / "without", SHARED, individual=True))


def test_records_and_plan_say_what_is_delivered_and_grown_from(plateaus):
    first, second, third = (StageRecord.read(plateaus / s / "manifest.json") for s in STAGES)
    assert [one.delivered for one in (first, second, third)] == ["last", "average", "average"]
    assert second.growth.grown_from.startswith("the plateau of 'a', iteration 5 of 8")
    assert third.growth.grown_from.startswith(f"the plateau of 'b', iteration {second.iters} of")
    text = " ".join(plan_text(compt.plan(copy.deepcopy(PLATEAUS))).split())
    assert "'b' grows from 'a' as it is after iteration 5 of 8, before its decay" in text
    assert f"after iteration {second.iters} of {second.iters}, before averaging" in text


def test_an_interrupted_grown_stage_goes_on_to_the_same_bytes(plateaus, tmp_path, monkeypatch):
    work, step = tmp_path / "work", loops.TrainLoop._step

    def dying(self: Any, batch: Any) -> None:
        if self._iter == 5 and str(self.runner.work_dir).endswith("02_b"):
            raise Died
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loops.TrainLoop, "_step", dying)
        with pytest.raises(Died):
            train(work, PLATEAUS)
    assert (work / "01_a" / "manifest.json").is_file()
    train(work, PLATEAUS, resume=True)
    assert written(work) == written(plateaus)
