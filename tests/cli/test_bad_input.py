"""What is refused: exit codes, and one message without a traceback."""

from __future__ import annotations

import pytest

from compt import cli
from tests.cli.conftest import refused, shell
from tests.conftest import config_file


def test_a_missing_config_is_one_message(run):
    for command in ("plan", "train"):
        refused(run(command, "no/such/config.py"), "no/such/config.py")


def test_a_config_of_another_folder_is_not_taken_for_a_shipped_one(run):
    refused(run("plan", "elsewhere/clip_chain.py"), "elsewhere/clip_chain.py")


def test_a_shipped_config_is_found_by_its_name():
    assert cli.find_config("clip_chain") == cli.find_config("clip_chain.py")
    assert "chain = " in cli.find_config("clip_chain").read_text()


def test_a_folder_is_no_config(run, tmp_path):
    refused(run("plan", tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("trian",),
        ("plan",),
        ("plan", "a.py", "b.py"),
        ("plan", "a.py", "--jsn"),
        ("train", "a.py", "--launcher", "ssh"),
        ("grow", "--from", "a"),
        ("report",),
    ],
)
def test_arguments_that_do_not_parse_end_with_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: compt" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["seed"], "'seed' is not KEY=VALUE"),
        (["seed=(1,"], "the value of 'seed=(1,' cannot be read"),
        (["grower=dict(type='clone', noise=0.5)"], "Set one key of a dict at a time"),
        (["sed=3"], "Did you mean 'seed'?"),
        (["chain.9.iters=3"], "--cfg-options"),
        (["chain.1=3"], "chain"),
        (["chain.0.iters=-3"], "chain.0.iters: -3"),
        (["=3"], ""),
    ],
)
def test_a_bad_option_is_one_message(run, toy, tmp_path, options, word):
    for command in ("plan", "train"):
        refused(run(command, config_file(tmp_path, toy), "--cfg-options", *options), word)


def test_a_faulty_config_lists_its_faults(run, toy, tmp_path):
    toy["chain"][0]["epoch"] = 3
    toy["transfr"] = dict(type="none")
    result = run("plan", config_file(tmp_path, toy))
    refused(result, "2 faults", "Did you mean 'epochs'?", "Did you mean 'transfer'?", "toy.py")
    assert result.out == ""


@pytest.mark.parametrize("tail", ["", "run"])
def test_a_file_in_the_way_of_the_work_folder(run, short, tmp_path, tail):
    (tmp_path / "file").write_text("mine")
    refused(
        run("train", config_file(tmp_path, short), "--work-dir", tmp_path / "file" / tail),
        "file",
        "--work-dir",
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_run_would_overwrite_is_left_alone(run, short, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "report.json").write_text("mine")
    refused(
        run("train", config_file(tmp_path, short), "--work-dir", folder),
        "holds no chain of compt, but report.json",
        "--work-dir",
    )
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == ["report.json"]


def test_failed_training_ends_with_1(run, short, tmp_path):
    short["paradigm"]["fail_at"] = 1
    folder = tmp_path / "run"
    refused(run("train", config_file(tmp_path, short), "--work-dir", folder), "not finite", code=1)
    assert (folder / "chain.json").is_file()
    assert not (folder / "01_a" / "manifest.json").exists()


def test_a_process_of_its_own_ends_the_same_way(toy, tmp_path):
    config_file(tmp_path, {**toy, "sed": 3})
    refused(shell("-m", "compt", "plan", "toy.py", folder=tmp_path), "Did you mean 'seed'?")
