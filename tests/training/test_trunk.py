"""Train chains whose members grow from the plateau of the one before."""

from __future__ import annotations

import copy
import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import compt
from compt.errors import ConfigError, WorkDirError
from compt.report.format import growth_text
from compt.report.plan_table import plan_text
from compt.report.record import StageRecord
from compt.testing.toy import ToyNet
from compt.training import loops
from compt.weights import load_weights
from tests.conftest import TOY
from tests.test_chain import python

WARMUP = dict(type="LinearLR", start_factor=1e-3, begin=0, end=2)
TRUNK: dict[str, Any] = dict(
    copy.deepcopy(TOY),
    chain=copy.deepcopy(TOY["chain"][:2]),
    trunk=True,
    grown=dict(optimizer_state=True),
    param_scheduler=[WARMUP, dict(type="CosineAnnealingLR", eta_min=0.0, begin=5, end=8)],
)
"""The decay begins after 5 of 8 iterations, between the checkpoints after 3 and 6."""
KEPT = ("plateau.safetensors", "plateau_optimizer.safetensors")


class Died(BaseException):
    """The process is gone."""


def train(folder: Path, config: Mapping[str, Any] = TRUNK, **options: Any) -> Path:
    return compt.train(copy.deepcopy(dict(config)), work_dir=folder, **options)


def read(work: Path, stage: str, name: str = "weights.safetensors") -> bytes:
    return (work / stage / name).read_bytes()


def record(work: Path, stage: str) -> StageRecord:
    return StageRecord.read(work / stage / "manifest.json")


def copied(work: Path, folder: Path, without: str = "") -> Path:
    """Copy a work folder, all but a stage, as it would be before that."""
    shutil.copytree(work, folder / "work", ignore=shutil.ignore_patterns(without))
    return folder / "work"


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("trunk") / "work")


def test_the_plateau_is_the_member_that_never_decays(trunk, toy, tmp_path):
    """To the byte: of a stage of 5 iterations that keeps its rate."""
    toy |= dict(chain=[dict(toy["chain"][0], iters=5)], param_scheduler=[WARMUP])
    constant = train(tmp_path / "work", dict(toy, checkpoint=dict(interval=3, optimizer=True)))
    assert read(trunk, "01_a", KEPT[0]) == read(constant, "01_a")
    assert read(trunk, "01_a", KEPT[1]) == read(constant, "01_a", "optimizer.safetensors")
    assert read(trunk, "01_a", KEPT[0]) != read(trunk, "01_a")


def test_the_delivered_member_is_the_one_without(trunk, tmp_path):
    ends = train(tmp_path / "work", dict(TRUNK, trunk=False))
    assert read(ends, "01_a") == read(trunk, "01_a")
    assert read(ends, "02_b", "grown.safetensors") != read(trunk, "02_b", "grown.safetensors")
    assert {path.name for path in (ends / "01_a").iterdir()}.isdisjoint(KEPT)
    costs = [record(work, stage).flops for work in (ends, trunk) for stage in ("01_a", "02_b")]
    assert costs[:2] == costs[2:]


def test_the_next_member_grows_from_it_with_its_optimizer_state(trunk):
    """It computes what the plateau does, and Adam has counted as many steps."""
    source, grown = ToyNet(8, 1).eval(), ToyNet(16, 2).eval()
    load_weights(source, trunk / "01_a" / KEPT[0])
    load_weights(grown, trunk / "02_b" / "grown.safetensors")
    points = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grown(points), source(points), atol=1e-5)
    load_weights(source, trunk / "01_a" / "weights.safetensors")
    assert not torch.allclose(grown(points), source(points), atol=1e-4)
    assert load_file(trunk / "02_b" / "grown_optimizer.safetensors")["step:embed.weight"] == 5


def test_the_teacher_is_the_delivered_member(trunk):
    assert "01_a/weights.safetensors" in (trunk / "02_b" / "config.py").read_text()
    assert "plateau.safetensors" not in (trunk / "02_b" / "config.py").read_text()


def test_the_last_member_keeps_its_plateau_alone(trunk):
    assert (trunk / "02_b" / KEPT[0]).is_file()
    assert not (trunk / "02_b" / KEPT[1]).exists()


def test_records_and_plan_say_it(trunk):
    first, second = record(trunk, "01_a"), record(trunk, "02_b")
    assert (first.plateau_iter, second.plateau_iter) == (5, 5)
    assert set(KEPT) < first.files.keys()
    assert second.growth.grown_from == "the plateau of 'a', iteration 5 of 8"
    assert growth_text(second.growth).endswith("grown from the plateau of 'a', iteration 5 of 8")
    text = plan_text(compt.plan(copy.deepcopy(TRUNK)))
    assert "'b' grows from 'a' as it is after iteration 5 of 8" in text
    assert "'b' is kept as it is after iteration 5 of 8" in text


def test_an_older_record_says_nothing_of_it(trunk, tmp_path):
    content = json.loads(read(trunk, "02_b", "manifest.json"))
    del content["plateau_iter"], content["growth"]["grown_from"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    old = StageRecord.read(tmp_path / "manifest.json")
    assert (old.plateau_iter, old.growth.grown_from) == (None, "")


def test_a_damaged_plateau_is_not_grown_from(trunk, tmp_path):
    work = copied(trunk, tmp_path, without="02_b")
    (work / "01_a" / KEPT[0]).write_bytes(read(trunk, "01_a"))
    with pytest.raises(WorkDirError, match=r"'plateau\.safetensors' is damaged"):
        train(work, resume=True)


def test_a_stage_that_ends_before_its_decay_has_its_plateau_at_its_end(tmp_path):
    config = copy.deepcopy(TRUNK)
    config["chain"][0]["stopping"] = dict(type="until", metric="val/loss", target=100.0)
    work = train(tmp_path / "work", config)
    assert record(work, "01_a").plateau_iter == record(work, "01_a").iters == 4
    assert read(work, "01_a", KEPT[0]) == read(work, "01_a")


def test_alone_nothing_is_kept(tmp_path, trunk):
    work = train(tmp_path / "work", dict(TRUNK, chain=TRUNK["chain"][:1]), individual=True)
    assert {path.name for path in (work / "01_a").iterdir()}.isdisjoint(KEPT)
    assert read(work, "01_a") == read(trunk, "01_a")


# Another folder's stage


def given(path: Path, **options: Any) -> dict[str, Any]:
    config = copy.deepcopy(TRUNK)
    config["chain"][0] |= dict(init=str(path), **options)
    config["individual"] = dict(iters=8)
    return config


def test_a_given_member_brings_its_plateau_along(trunk, tmp_path):
    work = train(tmp_path / "work", given(trunk / "01_a", iters=0))
    assert read(work, "01_a") == read(trunk, "01_a")
    for name in ("grown.safetensors", "grown_optimizer.safetensors", "weights.safetensors"):
        assert read(work, "02_b", name) == read(trunk, "02_b", name), name
    assert record(work, "02_b").growth.grown_from == f"the plateau of {trunk / '01_a'}"


def test_a_stage_may_go_on_from_a_plateau(trunk, tmp_path):
    config = given(trunk / "01_a" / KEPT[0])
    del config["chain"][1]
    work = train(tmp_path / "work", config)
    assert read(work, "01_a", "grown.safetensors") == read(trunk, "01_a", KEPT[0])


def test_a_given_member_without_one_is_refused(trunk, tmp_path):
    config = given(trunk / "01_a" / "export", iters=0)
    with pytest.raises(ConfigError, match="no plateau to grow from"):
        compt.plan(config)
    config["trunk"] = config["grown"] = None
    assert compt.plan(config).stages[0].plateau_iter is None


def test_a_given_member_without_the_state_is_refused(trunk, tmp_path):
    config = given(trunk / "02_b", iters=0)
    config["chain"][0]["model"] = TRUNK["chain"][1]["model"]
    config["chain"][1]["model"] = dict(width=24, depth=3)
    with pytest.raises(ConfigError, match="has not kept what its optimizer remembered"):
        train(tmp_path / "work", config)


# Interrupted

SCRIPT = """
import os, signal, sys
import compt, torch
from compt.training import loops
from tests.training.test_trunk import TRUNK
torch.set_num_threads(1)
step = loops.TrainLoop._step
def dying(self, batch):
    if self._iter == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)
loops.TrainLoop._step = dying
compt.train(TRUNK, work_dir=sys.argv[2], resume="resume" in sys.argv)
"""


ALONE = dict(
    TRUNK,
    chain=TRUNK["chain"][:1],
    checkpoint=dict(TRUNK["checkpoint"], optimizer=True),
)
"""The first member, which keeps what the second would begin with."""


def stopped(folder: Path, monkeypatch, iteration: int) -> Path:
    """Train the first member, and die in this iteration."""
    step = loops.TrainLoop._step

    def dying(self, batch):
        if self._iter == iteration:
            raise Died
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loops.TrainLoop, "_step", dying)
        with pytest.raises(Died):
            train(folder / "work", ALONE)
    return folder / "work"


@pytest.mark.parametrize("iteration", [5, 7])
def test_an_interrupted_stage_has_the_same_plateau(iteration, trunk, tmp_path, monkeypatch):
    """After the plateau, before a checkpoint that comes after it, and behind that."""
    work = stopped(tmp_path, monkeypatch, iteration)
    assert (work / "01_a" / KEPT[0]).is_file()
    train(work, ALONE, resume=True)
    for name in (*KEPT, "weights.safetensors"):
        assert read(work, "01_a", name) == read(trunk, "01_a", name), name


def test_what_was_not_kept_cannot_be_inherited(trunk, tmp_path):
    """By a member that is appended; its growth from the last plateau can go on without."""
    work, config = copied(trunk, tmp_path), copy.deepcopy(TRUNK)
    config["chain"].append(dict(name="c", model=dict(width=24, depth=3), iters=8))
    with pytest.raises(WorkDirError, match=r"'c' is to inherit .* of 'b', which was not kept"):
        train(work, config, resume=True)
    config["chain"][2]["grown"] = None
    train(work, config, resume=True)
    assert record(work, "03_c").growth.grown_from == "the plateau of 'b', iteration 5 of 8"


@pytest.mark.slow
def test_a_killed_chain_ends_the_same(trunk, tmp_path):
    for point, code, *options in ((5, -signal.SIGKILL), (-1, 0, "resume")):
        done = python("-c", SCRIPT, str(point), str(tmp_path / "work"), *options)
        assert done.returncode == code, done.stderr
    for stage in ("01_a", "02_b"):
        for name in (KEPT[0], "weights.safetensors"):
            assert read(tmp_path / "work", stage, name) == read(trunk, stage, name)
