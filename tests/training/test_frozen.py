"""What is frozen stays, what is frozen for a while learns after, and resumes are exact."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from safetensors.torch import load_file

import compt
from compt.report.record import StageRecord
from compt.training.stage import StageModel
from tests.conftest import TOY
from tests.training.spread import Spread, chain

MEMBERS = (
    dict(name="a", model=dict(width=8, depth=2), iters=4),
    dict(name="b", model=dict(width=8, depth=4), iters=8, freeze="old"),
    dict(name="c", model=dict(width=8, depth=5), iters=8, freeze=dict(params="old", until=0.5)),
)
EXPANDED: dict[str, Any] = dict(
    copy.deepcopy(TOY),
    grower=dict(type="stack", order="expand", blocks="zero"),
    transfer=dict(type="none"),
    chain=list(MEMBERS),
)
NEW = {"b": ("blocks.1.", "blocks.3."), "c": ("blocks.4.",)}
"""Copies stand behind what they copy."""


def train(folder: Path, config: Mapping[str, Any] = EXPANDED, **options: Any) -> Path:
    return compt.train(copy.deepcopy(dict(config)), work_dir=folder, **options)


def weights(work: Path, stage: str, name: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(work / stage / f"{name}.safetensors")


@pytest.fixture(scope="module")
def expanded(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("frozen") / "work")


def test_old_blocks_stay_and_new_ones_learn(expanded):
    grown, trained = weights(expanded, "02_b", "grown"), weights(expanded, "02_b")
    changed = {name for name in grown if not torch.equal(grown[name], trained[name])}
    assert changed == {name for name in grown if name.startswith(NEW["b"])}


def test_what_is_frozen_for_a_while_learns_after(expanded):
    grown, trained = weights(expanded, "03_c", "grown"), weights(expanded, "03_c")
    assert all(not torch.equal(grown[name], trained[name]) for name in grown)


def test_a_frozen_backward_pass_is_not_charged(expanded):
    plan = compt.plan(copy.deepcopy(EXPANDED))
    for stage, planned in zip(("01_a", "02_b", "03_c"), plan.stages, strict=True):
        record = StageRecord.read(expanded / stage / "manifest.json")
        whole = planned.batch_size * planned.iters * planned.student_flops
        assert record.flops.total == planned.flops == whole - record.flops.saved
        assert (record.flops.saved > 0) is (planned.frozen is not None)


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("at", [5, 7], ids=["saved while frozen", "saved after"])
def test_a_resumed_stage_has_the_same_bytes(at, expanded, tmp_path, monkeypatch):
    work = shutil.copytree(
        expanded, tmp_path / "work", ignore=shutil.ignore_patterns("03_c", "status.json")
    )
    after_step = StageModel.after_step

    def dying(self: StageModel) -> None:
        after_step(self)
        if self.iteration == at:
            raise Died

    with monkeypatch.context() as patch:
        patch.setattr(StageModel, "after_step", dying)
        with pytest.raises(Died):
            train(work, resume=True)
    train(work, resume=True)
    name = "03_c/weights.safetensors"
    assert (work / name).read_bytes() == (expanded / name).read_bytes()


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_the_optimizer_remembers_nothing_of_what_is_frozen(make, optimizer):
    frozen = ["blocks.0.fc1.weight", "head.bias"]
    options = dict(momentum=0.9) if optimizer == "SGD" else {}
    config = dict(
        type="OptimWrapper",
        constructor="ComptOptimWrapperConstructor",
        optimizer=dict(type=optimizer, lr=0.1, **options),
    )

    def stepped(stage, at: int) -> set[str]:
        """Take a step, and return of which parameters something is remembered."""
        stage.frozen.at(at, stage.student)
        wrapper.update_params(stage.student(torch.ones(4, 8)).square().sum())
        names = {param: name for name, param in stage.student.named_parameters()}
        return {names[param] for param in wrapper.optimizer.state}

    stage = make(teacher=None, frozen=dict(params=frozen))
    every = {name for name, _ in stage.student.named_parameters()}
    wrapper = build_optim_wrapper(stage, config)
    assert stepped(stage, 0) == every - {*frozen}

    stage = make(teacher=None, frozen=dict(params=frozen, until=2))
    wrapper = build_optim_wrapper(stage, config)
    before = stage.student.head.bias.clone()
    assert stepped(stage, 1) == every - {*frozen}
    assert torch.equal(stage.student.head.bias, before)
    assert stepped(stage, 2) == every
    assert not torch.equal(stage.student.head.bias, before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("until", [1.0, 0.4])
def test_two_processes_freeze_as_one_does(kind, until, tmp_path):
    models = [dict(width=16, depth=depth, dropout=0.0) for depth in (2, 4)]
    config = chain(
        dict(type="toy", samples=256),
        *models,
        grower=dict(type="stack", order="expand", blocks="zero"),
        transfer=dict(type="feature_mse"),
        custom_imports=dict(imports=["compt.testing.toy"]),
    )
    config["chain"][1]["freeze"] = dict(params="old", until=until)
    spread = Spread(tmp_path, config)
    expected = spread.run("one")
    noted = spread.run("two", 2, parallel=dict(type=kind))
    assert noted["losses"]["02_b"] == pytest.approx(expected["losses"]["02_b"], abs=1e-5)
    alone = spread.weights("one")
    for name, value in spread.weights("two").items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-5, msg=name)
