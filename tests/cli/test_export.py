"""``compt export``: a stage's model with its card, in any number format, checked and told."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from compt.testing.toy import Toy
from tests.cli.conftest import refused


def head_of(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("stage", ["b", "02_b", "02_b/"])
def test_a_stage_is_exported_as_it_is(stage, run, finished, tmp_path):
    code, out, err = run("export", f"{finished}/{stage}", "-o", tmp_path / "out")
    assert code == 0, err
    was = load_file(finished / "02_b" / "export" / "toy.safetensors")
    is_now = load_file(tmp_path / "out" / "toy.safetensors")
    assert was.keys() == is_now.keys() and all(torch.equal(was[n], is_now[n]) for n in was)
    assert "toy.safetensors" in out and "written in float32" in out and "changes" not in out


def test_rounding_is_measured_and_said_in_the_card_too(run, finished, tmp_path):
    out = tmp_path / "out"
    code, text, err = run("export", finished / "b", "-o", out, "--dtype", "bf16", "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report["dtype"] == "bfloat16" and 0 < report["rounding_error"] < 0.1
    state = load_file(out / "toy.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert report["files"] == {"toy.safetensors": (out / "toy.safetensors").stat().st_size}
    card = (out / "README.md").read_text()
    assert f"Written in bfloat16, which changes outputs by {report['rounding_error']:.1e}" in card


def test_cards_of_a_chain_name_what_the_weights_were_grown_from(run, finished, tmp_path):
    export = finished / "02_b" / "export"
    head = head_of(export)
    assert head["base_model"] == "run/a"
    assert "base_model" not in head_of(finished / "01_a" / "export")
    (metrics,) = (result["metrics"] for result in head["model-index"][0]["results"])
    manifest = json.loads((finished / "02_b" / "manifest.json").read_text())
    measured = {name: metric["value"] for name, metric in manifest["metrics"].items()}
    assert {metric["name"]: metric["value"] for metric in metrics} == measured
    assert metrics[0]["args"]["chance"] == pytest.approx(0.1)
    # an older work folder has no cards
    old = tmp_path / "run"
    shutil.copytree(finished, old)
    for card in old.rglob("README.md"):
        card.unlink()
    assert run("export", old / "b", "-o", tmp_path / "out").code == 0
    assert head_of(tmp_path / "out") == head


def test_a_grown_checkpoint_has_a_card(run, finished, tmp_path):
    larger = tmp_path / "larger.json"
    larger.write_text(json.dumps(dict(width=16, depth=3)))
    out = tmp_path / "grown"
    arguments = ("--from", finished / "01_a", "--to", larger, "-o", out, "--paradigm", "toy")
    code, _, err = run("grow", *arguments)
    assert code == 0, err
    assert head_of(out)["base_model"] == "run/a"
    assert Toy().recognises(out)


def test_a_paradigm_without_shards_says_so(run, finished, tmp_path):
    code, out, err = run("export", finished / "b", "-o", tmp_path / "out", "--shard-size", "1KB")
    assert code == 0, err
    assert "note: 'toy.safetensors' is one file above the size of a shard" in out


def test_nothing_is_overwritten_and_damage_is_named(run, finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    refused(run("export", finished / "b", "-o", tmp_path / "out"), "is not empty")
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    with open(copy / "02_b" / "export" / "toy.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\1\2\3")
    refused(run("export", copy / "b", "-o", tmp_path / "new"), "SHA-256", "--from-stage b")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        ("bb", [], ["no member 'bb'", "Members: a, b, c"]),
        ("nowhere/b", [], ["is no finished stage"]),
        ("b", ["--shard-size", "huge"], ["--shard-size 'huge' is no size"]),
        ("b", ["--dtype", "int8"], ["No number format 'int8'"]),
    ],
)
def test_bad_input_is_named_before_work(stage, options, words, run, finished, tmp_path):
    refused(run("export", finished / stage, "-o", tmp_path / "out", *options), *words)


def test_a_stage_that_is_not_finished_is_refused(run, finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "03_c" / "manifest.json").unlink()
    refused(run("export", copy / "c", "-o", tmp_path / "out"), "Stage 'c'", "not finished")
