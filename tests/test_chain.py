"""The chain loop: what a run leaves, and that no interruption changes a bit of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import compt
from compt import ConfigError, TrainingError
from compt.errors import WorkDirError
from compt.files import read_json
from compt.report.progress import Silent
from compt.report.record import StageRecord
from tests.environments import ROOT
from tests.kill_at import POINTS
from tests.processes import this_python


def python(*arguments: str) -> subprocess.CompletedProcess:
    return this_python().run(*arguments, cwd=ROOT)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """An uninterrupted run of the toy chain.

    Python is started for it: what is forked has another order of sets, and must train the same.
    """
    folder = tmp_path_factory.mktemp("reference") / "run"
    command = [sys.executable, "-m", "tests.kill_at", "never", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return folder


def same_weights(one: Path, other: Path) -> None:
    for stage in ("01_a", "02_b", "03_c"):
        assert (one / stage / "weights.safetensors").read_bytes() == (
            other / stage / "weights.safetensors"
        ).read_bytes(), stage


@pytest.mark.parametrize("point", POINTS)
def test_kill_and_resume_gives_the_same_bytes(point, reference, tmp_path):
    folder = tmp_path / "run"
    killed = python("-m", "tests.kill_at", point, str(folder))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/manifest.json")}
    resumed = python("-m", "tests.kill_at", "never", str(folder), "resume")
    assert resumed.returncode == 0, resumed.stderr
    same_weights(reference, folder)
    for stage, written in finished.items():
        assert (folder / stage / "manifest.json").stat().st_mtime_ns == written, (
            f"{stage} was trained again"
        )
    assert not list(folder.rglob("*.tmp")), "an interrupted write was left behind"
    before, after = (read_json(f / "03_c" / "manifest.json") for f in (reference, folder))
    assert before["metrics"] == after["metrics"]
    assert before["left_out"] == after["left_out"]
    assert [p["iter"] for p in before["curve"]] == [p["iter"] for p in after["curve"]]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(sig, tmp_path, toy):
    toy["chain"][0]["iters"] = 100_000
    toy["checkpoint"] = dict(interval=50_000)
    toy["evaluations"] = 1
    config = tmp_path / "toy.py"
    config.write_text("\n".join(f"{k} = {v!r}" for k, v in toy.items()))
    process = this_python().start(
        "-m", "compt", "train", config, "--work-dir", tmp_path / "run", cwd=ROOT
    )
    until = time.monotonic() + 120
    while not list((tmp_path / "run").rglob("scalars.json")):  # the first line of a loop that runs
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(sig)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + sig
    assert "--resume" in errors
    assert "Traceback" not in errors
    saved = list((tmp_path / "run" / "01_a" / "checkpoints").glob("iter_*.pt"))
    assert len(saved) == 1
    iteration = torch.load(saved[0], weights_only=True)["iter"]
    assert f"after iteration {iteration} " in errors


def test_what_a_stage_leaves(reference):
    manifest = read_json(reference / "02_b" / "manifest.json")
    assert manifest["samples"] == 8 * 32
    assert manifest["main_metric"] == "val/accuracy"
    assert manifest["metrics"]["val/accuracy"]["chance"] == 0.1
    assert [p["iter"] for p in manifest["curve"]] == [4, 8]
    assert manifest["growth"]["function_preserving"]
    expected = (
        32 * 8 * (manifest["flops"]["student_per_sample"] + manifest["flops"]["teacher_per_sample"])
    )
    assert manifest["flops"]["total"] == pytest.approx(expected)
    assert manifest["curve"][0]["flops"] == pytest.approx(expected / 2)
    assert not (reference / "02_b" / "checkpoints").exists()
    events = list((reference / "02_b").rglob("events.out.tfevents*"))
    assert events, "no TensorBoard log"
    exported = load_file(reference / "02_b" / "export" / "toy.safetensors")
    weights = load_file(reference / "02_b" / "weights.safetensors")
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[k], weights[k]) for k in weights)


def test_a_stage_runs_alone_as_an_mmengine_config(reference, tmp_path):
    script = (
        "import sys; from mmengine.config import Config; from mmengine.runner import Runner;"
        f"c = Config.fromfile(r'{reference / '02_b' / 'config.py'}'); c.work_dir = r'{tmp_path}';"
        "r = Runner.from_cfg(c); r.train(); print('iterations', r.iter)"
    )
    result = python("-c", script)
    assert "iterations 8" in result.stdout, result.stderr


def test_a_used_folder_is_not_overwritten(reference, toy):
    with pytest.raises(WorkDirError, match="--resume"):
        compt.train(toy, work_dir=reference)


def test_resuming_a_finished_chain_trains_nothing(reference, toy):
    before = {p: p.stat().st_mtime_ns for p in reference.rglob("*.safetensors")}
    compt.train(toy, work_dir=reference, resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in reference.rglob("*.safetensors")}


def test_a_changed_config_is_named(reference, toy):
    toy["chain"][1]["iters"] = 9
    toy["grower"] = dict(type="leading_block")
    with pytest.raises(
        WorkDirError, match=r"chain\.1\.iters: 8 -> 9\n.*grower\.type: lossless -> leading_block"
    ):
        compt.train(toy, work_dir=reference, resume=True)


def test_unwritable_folders_are_refused(toy, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(WorkDirError, match="cannot be used"):
        compt.train(toy, work_dir=tmp_path / "thesis.tex" / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_use_is_refused(toy, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".chain.lock"), pytest.raises(WorkDirError, match="Another process"):
        compt.train(toy, work_dir=tmp_path)


def test_nan_stops_the_stage_and_keeps_the_last_good_checkpoint(toy, tmp_path):
    toy["paradigm"]["fail_at"] = 5
    with pytest.raises(TrainingError, match=r"not finite.*iteration 6 of 8(.*\n)*.*iteration 3"):
        compt.train(toy, work_dir=tmp_path / "run")
    saved = sorted((tmp_path / "run" / "01_a" / "checkpoints").glob("*.pt"))
    assert [p.name for p in saved] == ["iter_00000003.pt"]
    state = torch.load(saved[0], weights_only=True)
    assert all(torch.isfinite(t).all() for t in state["state_dict"].values())


def test_checkpoints_wait_for_accumulated_gradients(toy, tmp_path):
    toy["optim_wrapper"] = dict(accumulative_counts=3)
    toy["checkpoint"] = dict(interval=2, keep=9)
    toy["chain"][0]["iters"] = 8
    toy["paradigm"]["fail_at"] = 2  # steps of the optimizer, three iterations each
    with pytest.raises(TrainingError, match="not finite"):
        compt.train(toy, work_dir=tmp_path / "run")
    saved = sorted((tmp_path / "run" / "01_a" / "checkpoints").glob("*.pt"))
    assert [p.name for p in saved] == ["iter_00000003.pt", "iter_00000006.pt"]


def test_individual_trains_every_member_from_scratch(toy, tmp_path):
    toy["individual"] = dict(iters=4)
    folder = compt.train(toy, work_dir=tmp_path / "run", individual=True)
    assert json.loads((folder / "chain.json").read_text())["mode"] == "individual"
    for stage in folder.glob("0*"):
        manifest = read_json(stage / "manifest.json")
        assert (manifest["iters"], manifest["growth"], manifest["transfer"]) == (4, None, None)
        assert not (stage / "grown.safetensors").exists()


class Noted(Silent):
    """Notes the plans and the finished stages that it is told of."""

    def __init__(self) -> None:
        self.plans, self.records = [], []

    def plan(self, plan):
        self.plans.append(plan)

    def stage_done(self, record):
        self.records.append(record)


def test_a_config_that_compares_trains_every_member_alone_too(toy, tmp_path):
    """Beside the chain, whose folder is returned; the first member is not trained twice."""
    noted = Noted()
    toy |= dict(compare=True, individual=dict(budget="chain"))
    assert compt.train(toy, work_dir=tmp_path / "run", progress=noted) == tmp_path / "run"
    alone = tmp_path / "run_individual"
    assert [plan.individual for plan in noted.plans] == [False, True]
    assert [(r.mode, r.name) for r in noted.records] == [
        (mode, name) for mode in ("chain", "individual") for name in "abc"
    ]
    first, copy = (noted.records[i] for i in (0, 3))
    assert replace(copy, mode="chain") == first, "the seconds too"
    assert noted.records[4] == StageRecord.read(alone / "02_b" / "manifest.json")
    assert noted.records[4].growth is None
    with pytest.raises(WorkDirError, match="already holds a chain"):
        compt.train(toy, work_dir=tmp_path / "run")
    assert compt.train(toy, work_dir=tmp_path / "run", resume=True) == tmp_path / "run"


def test_a_config_that_compares_may_train_the_members_alone_only(toy, tmp_path):
    toy |= dict(compare=True, individual=dict(iters=2))
    folder = compt.train(toy, work_dir=tmp_path / "run", individual=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert StageRecord.read(folder / "01_a" / "manifest.json").mode == "individual"


def test_plug_ins_are_recorded_by_their_short_names(toy, tmp_path):
    toy |= dict(grower=dict(type="compt:lossless"), transfer=dict(type="compt:feature_mse"))
    toy["chain"] = toy["chain"][:2]
    record = StageRecord.read(
        compt.train(toy, work_dir=tmp_path / "run") / "02_b" / "manifest.json"
    )
    assert (record.grower, record.transfer) == ("lossless", "feature_mse")
    assert record.growth.grower == "lossless"


def test_the_first_member_may_be_given(reference, toy, tmp_path):
    toy["chain"][0] |= dict(init=str(reference / "01_a" / "export"), iters=0)
    folder = compt.train(toy, work_dir=tmp_path / "run")
    given, kept = (load_file(f / "01_a" / "weights.safetensors") for f in (reference, folder))
    assert all(torch.equal(given[k], kept[k]) for k in given)


def test_a_wrong_first_member_is_refused(reference, toy, tmp_path):
    toy["chain"][0] |= dict(init=str(reference / "02_b" / "export"), iters=0)
    with pytest.raises(ConfigError, match=r"(?s)not of this model.*init of member 'a'"):
        compt.train(toy, work_dir=tmp_path / "run")


def test_the_log_has_held_out_losses_as_they_are(reference):
    """Not averaged over evaluations, as mmengine does with whatever is called a loss."""
    stage = reference / "02_b"
    (scalars,) = stage.glob("*/vis_data/scalars.json")
    logged = [
        line["val/loss"]
        for line in map(json.loads, scalars.read_text().splitlines())
        if "val/loss" in line
    ]
    curve = [
        point["metrics"]["val/loss"]["value"]
        for point in read_json(stage / "manifest.json")["curve"]
    ]
    assert logged == pytest.approx(curve) and len(set(logged)) > 1
