"""`compt plan --auto`, from training its pilots to the config that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compt
from compt.config import load_config
from compt.config.resuming import plain
from tests.conftest import TOY, config_file

FAMILY = {
    **TOY,
    "individual": dict(iters=140),
    "work_dir": "somewhere",
    "chain": [
        dict(name="a", model=dict(width=4, depth=1), epochs=9, grown=dict(warmup=0.1)),
        dict(name="b", model=dict(width=32, depth=2), iters=1),
    ],
}


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """The config of a family, with a folder of its pilots beside it."""
    return config_file(tmp_path_factory.mktemp("family"), FAMILY)


@pytest.fixture
def auto(run, family):
    """Design from pilots that are trained at the first call and read at all others."""

    def designed(*arguments: str):
        work_dir = ("--work-dir", str(family.parent))
        return run("plan", family, "--auto", "--pilot-budget", "0.9", *work_dir, *arguments)

    return designed


def test_pilots_are_trained_and_charged_and_a_chain_written(auto, family):
    out = family.parent / "out.py"
    code, text, err = auto("-o", str(out), "--metric", "val/loss")
    assert (code, err) == (0, "")
    assert "pilots: every member alone for 72_iters, 36_iters, 18_iters" in text
    assert "90.0% of all members alone" in text
    for words in ("design (val/loss", "skip bound", "pilots charged", "stopping", "=> "):
        assert words in text
    assert f"written: {out}" in text
    config = load_config(out)
    assert [stage.name for stage in config.stages] == ["a", "b"]
    assert config.raw["individual"] == {"iters": 140}
    assert 140 <= config.stages[0].iters <= 280
    assert config.stages[0].grown.warmup == 0.1 and "work_dir" not in config.raw
    assert config.raw["transfer"] == TOY["transfer"]
    for name in ("72_iters", "36_iters", "18_iters"):
        assert (family.parent / "pilots" / name / "02_b" / "manifest.json").is_file()


def test_what_is_trained_is_not_trained_again(auto, family):
    """And JSON is all that is printed."""
    weights = family.parent / "pilots" / "72_iters" / "02_b" / "weights.safetensors"
    before = weights.stat().st_mtime_ns if weights.is_file() else None
    code, text, err = auto("--json", "--only-largest", "--metric", "val/loss")
    assert code == 0 and before in (None, weights.stat().st_mtime_ns)
    content = json.loads(text)
    assert "pilots: every member alone" in err
    alone, pilots = content["alone_flops"], content["pilot_flops"]
    assert content["charged_ratio"] == pytest.approx(alone / (content["flops"] + pilots))
    assert content["flops"] == content["chain"]["flops"]
    assert content["config"] == plain(load_config(content["config"]).raw)
    assert [one["wanted"] for one in content["members"]] == [False, True]
    assert content["downward_bound"] == 1.0, "one member alone is what it is compared with"


@pytest.mark.slow
def test_the_chain_trains(auto, family, tmp_path):
    out = family.parent / "trained.py"
    auto("-o", str(out))
    assert compt.train(str(out), work_dir=tmp_path / "chain").is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--auto",), "needs pilots"),
        (("--only-largest",), "--only-largest is for designing a chain"),
        (("-o", "x.py"), "--out is for designing a chain"),
        (("--auto", "--pilot-budget", "0.5", "--individual"), "does not go with --individual"),
        (("--auto", "--pilot-budget", "0"), "--pilot-budget 0 is no part"),
        (("--auto", "--pilot-budget", "0.01"), "leaves a pilot of 1 iterations"),
        (("--auto", "--pilot-budget", "0.5", "-o", "chain.json"), "is no name of a config"),
        (("--auto", "--pilot", "nowhere"), "'nowhere' does not exist"),
    ],
)
def test_bad_input(run, family, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("plan", family, *arguments)
    assert code == 2 and words in err
    assert not list(tmp_path.iterdir())


def test_a_file_is_kept(run, family, tmp_path):
    """Before anything is trained."""
    there = tmp_path / "there.py"
    there.write_text("mine")
    code, _, err = run("plan", family, "--auto", "--pilot-budget", "0.9", "-o", str(there))
    assert code == 2 and "--force" in err and there.read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(individual=dict(budget="chain")), "for as long as in the chain"),
        (dict(chain=FAMILY["chain"][:1]), "There is one member"),
    ],
)
def test_families_that_cannot_be_designed(run, tmp_path, changes, words):
    file = config_file(tmp_path, {**FAMILY, **changes})
    code, _, err = run("plan", file, "--auto", "--pilot-budget", "0.9")
    assert code == 2 and words in err
