"""``compare=True``: one command trains the chain and every member alone, and reports on all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import config_file

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def folder(run, toy, tmp_path, monkeypatch) -> Path:
    """The work folder of a run with ``compare``; the individual one is beside it."""
    monkeypatch.chdir(tmp_path)
    file = config_file(tmp_path, {**toy, "compare": True, "individual": dict(budget="chain")})
    code, out, err = run("train", file, "--work-dir", tmp_path / "run")
    assert code == 0, err
    assert "alone" in out and "verdict" in out
    return tmp_path / "run"


def test_every_member_is_compared_with_itself_alone(folder):
    report = json.loads((folder / "report.json").read_text())
    assert [run["mode"] for run in report["runs"]] == ["chain", "individual"]
    assert [m["name"] for m in report["comparisons"][0]["members"]] == ["a", "b", "c"]
    samples = [[m["samples"] for m in run["members"]] for run in report["runs"]]
    assert samples[0] == samples[1]


def test_the_first_member_is_not_trained_twice(folder):
    chain, alone = (f / "01_a" for f in (folder, folder.with_name("run_individual")))
    manifests = [json.loads((stage / "manifest.json").read_text()) for stage in (chain, alone)]
    assert [m.pop("mode") for m in manifests] == ["chain", "individual"]
    assert manifests[0] == manifests[1]  # the seconds too: it is a copy
    assert (
        load_file(chain / "weights.safetensors").keys()
        == load_file(alone / "weights.safetensors").keys()
    )
    second = json.loads((folder.with_name("run_individual") / "02_b" / "manifest.json").read_text())
    assert second["grower"] is None


def test_a_first_member_with_another_budget_is_trained_alone(run, toy, tmp_path):
    file = config_file(tmp_path, {**toy, "compare": True, "individual": dict(iters=4)})
    code, _, err = run("train", file, "--work-dir", tmp_path / "run")
    assert code == 0, err
    alone = json.loads((tmp_path / "run_individual" / "01_a" / "manifest.json").read_text())
    assert alone["iters"] == 4


def test_an_initialised_first_member_is_trained_alone_from_scratch(run, toy, finished, tmp_path):
    toy["chain"][0] |= dict(init=str(finished / "01_a"), iters=8)
    file = config_file(tmp_path, {**toy, "compare": True, "individual": dict(budget="chain")})
    code, _, err = run("train", file, "--work-dir", tmp_path / "run")
    assert code == 0, err
    chain, alone = (
        load_file(tmp_path / name / "01_a" / "weights.safetensors")
        for name in ("run", "run_individual")
    )
    assert any((chain[name] != alone[name]).any() for name in chain)


def test_resume_goes_on_with_whatever_is_missing(run, folder):
    shutil.rmtree(folder.with_name("run_individual") / "03_c")
    code, _, err = run("train", folder.parent / "toy.py", "--work-dir", folder, "--resume")
    assert code == 0, err
    assert (folder.with_name("run_individual") / "03_c" / "manifest.json").is_file()


def test_individual_alone_trains_no_chain(run, toy, tmp_path):
    file = config_file(tmp_path, {**toy, "compare": True})
    code, _, err = run("train", file, "--individual", "--work-dir", tmp_path / "run")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "chain.json").read_text())["mode"] == "individual"
    assert not (tmp_path / "run_individual").exists()


def test_compare_is_a_switch(run, toy, tmp_path):
    code, _, err = run("train", config_file(tmp_path, {**toy, "compare": "yes"}))
    assert code == 2
    assert "compare: 'yes' is not True or False" in err
