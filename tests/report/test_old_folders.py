"""A chain that an older compt has begun, whose modules were elsewhere, goes on."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config

import compt
from compt.report.progress import Silent
from compt.report.record import StageRecord

CONFIG = """
custom_imports = dict(imports=['compt.stage', 'compt.loops', 'compt.testing.toy'])
model = dict(type='ComptStageModel')
"""
"""As much of an old stage's config.py as matters: the modules that it names."""


class Stopped(Exception):
    pass


class StopsInTheSecond(Silent):
    """Stop the second stage behind a checkpoint."""

    def stage_start(self, plan):
        self.name = plan.name

    def report(self, iteration, iters, loss):
        if (self.name, iteration) == ("b", 5):
            raise Stopped


def rewrite(path, **content):
    """Write a file of format 1 by hand."""
    assert path.is_file()
    path.write_text(json.dumps({"format": 1, **content}))


@pytest.fixture
def old_folder(toy, tmp_path):
    """A chain that was stopped in its second stage, with the files that an older compt wrote."""
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        compt.train(toy, work_dir=folder, progress=StopsInTheSecond())
    growth = json.loads((folder / "02_b" / "growth.json").read_text())["growth"]
    loss = {"value": 2.2, "chance": None, "higher_is_better": False}
    rewrite(folder / "chain.json", mode="chain", members=["a", "b", "c"], config=toy)
    rewrite(folder / "01_a" / "growth.json", growth=None)
    rewrite(folder / "02_b" / "growth.json", growth=growth)
    rewrite(
        folder / "01_a" / "manifest.json",
        name="a",
        index=0,
        mode="chain",
        paradigm="toy",
        grower=None,
        transfer=None,
        params=474,
        samples=256,
        iters=8,
        batch_size=32,
        flops={"student_per_sample": 2272.0, "teacher_per_sample": 0.0, "total": 581632.0},
        seconds=1.0,
        metrics={"val/loss": loss},
        main_metric="val/loss",
        curve=[
            {
                "iter": 8,
                "samples": 256,
                "flops": 581632.0,
                "seconds": 1.0,
                "metrics": {"val/loss": loss},
            }
        ],
        growth=None,
        environment={"device": "cpu"},
    )
    for stage in ("01_a", "02_b"):
        (folder / stage / "config.py").write_text(CONFIG)
    return folder


def test_it_ends_as_if_it_had_not_been_interrupted(old_folder, toy, tmp_path):
    manifest = (old_folder / "01_a" / "manifest.json").read_text()
    compt.train(toy, work_dir=old_folder, resume=True)
    whole = compt.train(toy, work_dir=tmp_path / "whole")
    for stage in ("01_a", "02_b", "03_c"):
        weights = [folder / stage / "weights.safetensors" for folder in (old_folder, whole)]
        assert weights[0].read_bytes() == weights[1].read_bytes(), stage
    assert (old_folder / "01_a" / "manifest.json").read_text() == manifest, "it was done"
    records = [StageRecord.read(f / "02_b" / "manifest.json") for f in (old_folder, whole)]
    assert records[0].metrics == records[1].metrics


def test_the_stages_that_go_on_can_be_run_alone_again(old_folder, toy):
    """What was finished names the modules of its time: docs/config.md says what to do."""
    with pytest.raises(ImportError):
        Config.fromfile(old_folder / "02_b" / "config.py")
    compt.train(toy, work_dir=old_folder, resume=True)
    config = Config.fromfile(old_folder / "02_b" / "config.py")
    assert "compt.training.stage" in config.custom_imports["imports"]
    with pytest.raises(ImportError):
        Config.fromfile(old_folder / "01_a" / "config.py")
