"""``compt train``: what it prints, where it writes, and how it is resumed."""

from __future__ import annotations

import json

import pytest

from compt import cli
from compt.files import read_json
from tests.cli.conftest import refused
from tests.conftest import config_file

pytestmark = pytest.mark.usefixtures("undrawn")


def test_training_prints_the_plan_first_and_the_report_last(run, short, tmp_path):
    folder = tmp_path / "run"
    code, out, err = run("train", config_file(tmp_path, short), "--work-dir", folder)
    assert code == 0, err
    steps = [
        "plan (compute in FLOP)",
        "warning: 'a' -> 'b'",
        "stage=a event=start iters=3 batch_size=32 grower=none",
        "stage=a event=done",
        "stage=b event=start iters=3 batch_size=32 grower=lossless transfer=feature_mse",
        "stage=b event=grown keeps_function=yes",
        "stage=b event=done",
        "val/accuracy",
        f"wrote {folder / 'report.json'}",
    ]
    places = [
        out.rindex(step) if step.startswith(("val", "wrote")) else out.index(step) for step in steps
    ]
    assert places == sorted(places)
    assert out.rstrip().splitlines()[-1].startswith("wrote ")
    report = json.loads((folder / "report.json").read_text())
    assert [member["name"] for member in report["runs"][0]["members"]] == ["a", "b"]


def test_training_goes_to_a_folder_named_after_the_config(run, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short["individual"] = dict(iters=2)
    file = config_file(tmp_path, short, "family.py")
    assert run("train", file).code == 0
    assert run("train", file, "--individual").code == 0
    chain, alone = (tmp_path / "work_dirs" / name for name in ("family", "family_individual"))
    assert [read_json(f / "chain.json")["mode"] for f in (chain, alone)] == ["chain", "individual"]
    assert [read_json(f / "02_b" / "manifest.json")["iters"] for f in (chain, alone)] == [3, 2]
    assert read_json(alone / "02_b" / "manifest.json")["growth"] is None
    code, out, _ = run("report", chain, alone)
    assert code == 0
    assert "verdict" in out
    refused(run("train", file, "--work-dir", alone, "--resume"), "'individual', not 'chain'")


def test_a_work_dir_of_the_config_is_used(run, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short |= dict(work_dir=str(tmp_path / "mine"), individual=dict(iters=2))
    file = config_file(tmp_path, short)
    assert run("train", file, "--individual").code == 0
    assert (tmp_path / "mine_individual" / "chain.json").is_file()
    assert not (tmp_path / "mine").exists()
    assert not (tmp_path / "work_dirs").exists()


def test_mims_train_command_takes_what_mim_passes(run, short, tmp_path):
    file, folder = config_file(tmp_path, short), tmp_path / "run"
    arguments = (
        "--launcher",
        "none",
        "--work-dir",
        folder,
        "--local-rank",
        "0",
        "--cfg-options",
        "seed=7",
    )
    assert run(file, *arguments, main=cli.train_main).code == 0
    assert read_json(folder / "chain.json")["config"]["seed"] == 7
    weights = folder / "02_b" / "weights.safetensors"
    before = weights.read_bytes(), weights.stat().st_mtime_ns
    refused(run(file, *arguments, main=cli.train_main), "--resume")
    assert run(file, "--resume", *arguments, main=cli.train_main).code == 0
    refused(run(file, *arguments[:-1], "seed=8", "--resume", main=cli.train_main), "seed: 7 -> 8")
    assert (weights.read_bytes(), weights.stat().st_mtime_ns) == before


def test_the_folder_to_resume_may_be_given_in_three_places(run, short, tmp_path):
    file, folder = config_file(tmp_path, short), tmp_path / "run"
    assert run("train", file, "--work-dir", folder).code == 0
    before = (folder / "02_b" / "manifest.json").stat().st_mtime_ns
    assert run("train", file, "--work-dir", folder, "--resume").code == 0
    assert run("train", file, "--resume", folder).code == 0
    assert run("train", "--work-dir", folder, "--resume", file).code == 0
    assert (folder / "02_b" / "manifest.json").stat().st_mtime_ns == before
    refused(run("train", file, "--work-dir", tmp_path / "other", "--resume", folder), "two folders")
    assert not (tmp_path / "other").exists()


def test_resuming_where_nothing_was_begun_starts_the_chain(run, short, tmp_path):
    folder = tmp_path / "run"
    assert run("train", config_file(tmp_path, short), "--work-dir", folder, "--resume").code == 0
    assert (folder / "02_b" / "manifest.json").is_file()


def test_train_without_a_config_says_so(run):
    refused(run("train"), "config")


def test_a_damaged_state_is_one_message(run, short, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "chain.json").write_text("{")
    refused(
        run("train", config_file(tmp_path, short), "--work-dir", folder, "--resume"), "chain.json"
    )
