"""What `compt eval` does with suites, whichever they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import compt
from compt.errors import ConfigError, PluginError
from compt.evaluation.options import require
from compt.report.evaluations import read_evaluations
from compt.report.record import StageRecord
from tests.evaluation.folders import WEIGHTS, finish

SIZES = ("--suite", "sizes")


def cells(out: str) -> list[list[str]]:
    """The rows of the table, without its rules."""
    lines = [line for line in out.splitlines() if "  " in line.strip() and "took" not in line]
    return [line.split() for line in lines]


def test_every_finished_member_is_measured_and_stands_in_one_table(work_dir, evaluate, suites):
    folder = work_dir(a="x" * 20, b="x" * 35, c=None)
    code, out, err = evaluate(folder, *SIZES)
    assert code == 0, err
    assert cells(out) == [
        ["suite", "metric", "chance", "a", "b"],
        ["sizes", "here/share", "10.0", "%", "20.0", "%", "35.0", "%"],
        ["here/error", "-", "not", "finite", "not", "finite"],
    ]
    assert "2 evaluated\n" in out and "not finished, and left out: c\n" in out
    assert "printed by a tool" not in out
    (evaluation,) = read_evaluations(folder / "02_b")
    assert evaluation.metrics["here/share"].value == pytest.approx(0.35)
    assert evaluation.options["data"] == os.path.abspath("here")
    assert evaluation.tool == "numpy" and evaluation.tool_version
    assert evaluation.environment["torch"]


def test_what_was_measured_is_kept_until_it_is_forced(work_dir, evaluate, suites):
    folder = work_dir(a="x", b="xx")
    first = evaluate(folder, *SIZES)
    again = evaluate(folder, *SIZES)
    assert again.code == 0 and "2 kept, as measured before" in again.out
    assert cells(again.out) == cells(first.out)
    assert suites.measured == ["x", "xx"]
    assert "2 evaluated\n" in evaluate(folder, *SIZES, "--force").out
    assert suites.measured == ["x", "xx"] * 2


def test_other_weights_are_measured_again_in_the_place_of_the_old(work_dir, evaluate, suites):
    folder = work_dir(a="x", b="xx")
    evaluate(folder, *SIZES)
    finish(folder / "02_b", "b", "xxxx")
    (old,) = read_evaluations(folder / "02_b")
    assert old.is_outdated(StageRecord.read(folder / "02_b" / "manifest.json").files)
    result = evaluate(folder, *SIZES, "--option", "num_workers=3")
    assert "1 kept, " in result.out and ", 1 evaluated\n" in result.out
    assert "1 in the place of evaluations of other weights" in result.out
    assert suites.measured == ["x", "xx", "xxxx"]
    (new,) = read_evaluations(folder / "02_b")
    assert not new.is_outdated(StageRecord.read(folder / "02_b" / "manifest.json").files)


def test_other_options_are_an_evaluation_of_their_own(work_dir, evaluate, suites):
    folder = work_dir(a="x" * 20)
    for option in ("scale=1", "scale=2", "scale=1.0", "num_workers=3"):  # the default is 1.0
        assert evaluate(folder, *SIZES, "--option", option).code == 0
    assert len(suites.measured) == 2
    evaluate(folder, *SIZES, "--option", "scale=1.0", "--force")  # in the place of 1
    values = [e.metrics["here/share"].value for e in read_evaluations(folder / "01_a")]
    assert sorted(values) == pytest.approx([0.2, 0.4])


def test_paths_are_recorded_from_the_root(work_dir, evaluate, suites, monkeypatch):
    folder = work_dir(a="x")
    evaluate(folder, *SIZES, "--option", "data=there")
    (evaluation,) = read_evaluations(folder / "01_a")
    assert evaluation.options["data"] == os.path.abspath("there")
    monkeypatch.chdir(folder)
    evaluate(folder, *SIZES, "--option", "data=there")
    assert len(suites.measured) == 2, "it is another folder"


def test_without_a_suite_all_that_was_measured_before_is_repeated(work_dir, evaluate, suites):
    folder = work_dir(a="x" * 20, b="x" * 30)
    evaluate(folder / "01_a", *SIZES, "--option", "scale=2")
    evaluate(folder / "01_a", *SIZES, "--option", "scale=3")
    code, out, _ = evaluate(folder)
    assert code == 0 and "2 kept, " in out and ", 2 evaluated\n" in out
    assert ["sizes", "scale=2", "here/share", "10.0", "%", "40.0", "%", "60.0", "%"] in cells(out)
    assert ["sizes", "scale=3", "here/share", "10.0", "%", "60.0", "%", "90.0", "%"] in cells(out)
    assert "4 kept, " in evaluate(folder).out


def test_a_member_that_fails_does_not_keep_the_next_from_being_measured(work_dir, evaluate):
    folder = work_dir(a="x", b="broken", c="xxx")
    code, out, err = evaluate(folder, *SIZES)
    assert code == 1
    assert "2 evaluated, 1 failed\n" in out
    assert "failed: sizes of b: RuntimeError: no such thing" in out
    assert "Traceback" not in out + err
    assert read_evaluations(folder / "03_c") and not read_evaluations(folder / "02_b")


def test_weights_that_are_not_those_of_the_stage_are_not_measured(work_dir, evaluate, suites):
    folder = work_dir(a="x", b="xx")
    (folder / "01_a" / "export" / WEIGHTS).write_text("y")
    # compt knows by its name which files of an export are weights
    (folder / "01_a" / "export" / WEIGHTS).rename(folder / "01_a" / "export" / "other.bin")
    code, out, _ = evaluate(folder, *SIZES)
    assert code == 0 and "left out: sizes of a: the suite does not read this format" in out
    (folder / "02_b" / "export" / WEIGHTS).write_text("y")
    code, out, _ = evaluate(folder, *SIZES)
    assert code == 1 and "'weights.bin' is damaged" in out
    assert suites.measured == ["xx"]


def test_json_is_all_that_stands_on_standard_output(work_dir, evaluate):
    folder = work_dir(a="x" * 20, b="broken")
    code, out, err = evaluate(folder, *SIZES, "--json")
    assert code == 1
    first, second = json.loads(out)["evaluations"]
    assert (first["member"], first["status"], first["suite"]) == ("a", "evaluated", "sizes")
    assert first["metrics"]["here/share"]["value"] == pytest.approx(0.2)
    assert first["metrics"]["here/error"]["value"] is None
    assert (second["status"], second["reason"][:12]) == ("failed", "RuntimeError")
    assert "printed by a tool" in err and "[1/2] a: sizes ..." in err


def test_exports_of_no_chain_have_their_results_beside_them(tmp_path, evaluate):
    export = tmp_path / "model"
    export.mkdir()
    (export / WEIGHTS).write_text("xx")
    assert evaluate(export, *SIZES).code == 0
    assert len(list((tmp_path / "model_evaluations").glob("sizes-*.json"))) == 1
    assert sorted(p.name for p in export.iterdir()) == [WEIGHTS]


def test_results_go_where_they_are_sent(work_dir, evaluate, tmp_path):
    one, two = work_dir("one", a="x"), work_dir("two", a="xx")
    code, out, _ = evaluate(one, two, *SIZES, "-o", tmp_path / "results")
    assert code == 0
    assert cells(out)[0] == ["suite", "metric", "chance", "one/a", "two/a"]
    assert not (one / "01_a" / "evaluations").exists()
    folders = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert folders == ["one_a", "two_a"]
    assert "2 kept, " in evaluate(one, two, *SIZES, "-o", tmp_path / "results").out


def test_a_stage_and_its_export_are_the_member_itself(work_dir, evaluate):
    folder = work_dir(a="x", b="xx")
    code, out, _ = evaluate(folder / "02_b", folder / "02_b" / "export", *SIZES)
    assert code == 0 and "1 evaluated\n" in out
    assert read_evaluations(folder / "02_b")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to evaluate"),
        (["--suite", "sizez"], "Did you mean 'sizes'"),
        ([*SIZES, "--option", "scal=2"], "takes no argument 'scal'. Did you mean 'scale'"),
        (["--suite", "demanding"], "needs the argument 'data'.\n  do: compt eval --list"),
        ([*SIZES, "--option", "scale=-1"], "scale: -1 is not a positive number"),
        ([*SIZES, "--option", "scale"], "--option: 'scale' is not KEY=VALUE"),
        ([*SIZES, "--option", "type=nothing"], "--suite NAME says which suite it is"),
        (["--option", "scale=1"], "Name it: --suite NAME"),
        (["--suite", "nothing"], "reads none of the models"),
        (["nowhere", *SIZES], "There is no '"),
        ([], "Nothing was evaluated before that could be repeated"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(work_dir, evaluate, suites, arguments, words):
    folder = work_dir(a="x")
    paths = [] if words == "nothing to evaluate" else [folder]
    code, _, err = evaluate(*paths, *arguments)
    assert code == 2 and words in err
    assert not suites.measured
    if "none of" in words or "repeated" in words:
        assert "sizes" in err, "the suites that read these models are named"


def test_nothing_finished_is_said(work_dir, evaluate):
    folder = work_dir(a=None)
    code, _, err = evaluate(folder, *SIZES)
    assert code == 2 and "No stage is finished" in err
    (folder / "01_a").mkdir()
    code, _, err = evaluate(folder / "01_a", *SIZES)
    assert code == 2 and "The stage '01_a' is not finished" in err


def test_a_damaged_result_is_named(work_dir, evaluate):
    folder = work_dir(a="x")
    evaluate(folder, *SIZES)
    (file,) = (folder / "01_a" / "evaluations").iterdir()
    file.write_text('{"format": 1, "suite": "sizes"}')
    code, out, _ = evaluate(folder, *SIZES)
    assert code == 1 and "is damaged: 'options' is missing" in out and str(file) in out


def test_the_suites_and_their_options_are_listed(evaluate):
    out = evaluate("--list").out
    assert "sizes: Measure how many bytes" in out and "    scale = 1.0" in out
    suites = {suite["name"]: suite for suite in json.loads(evaluate("--list", "--json").out)}
    assert suites["sizes"]["options"]["scale"] == "1.0"


def test_what_is_not_installed_is_named_with_its_command():
    require(["json"], "compt[eval-lm]")
    with pytest.raises(PluginError) as error:
        require(["json", "no_such_harness"], "compt[eval-lm]")
    assert "'no_such_harness'" in error.value.what and "json" not in error.value.what
    assert error.value.do == 'pip install "compt[eval-lm]"'


@pytest.mark.parametrize(
    ("module", "suite", "command"),
    [
        ("compt.evaluation.clip_benchmark", "ClipBenchmark", "compt[eval-clip]"),
        ("compt.evaluation.lm_eval", "LmEval", "compt[eval-lm]"),
        ("compt.evaluation.probes", "Knn", "scikit-learn"),
        ("compt.evaluation.imagefolder", "ImageFolderZeroShot", "compt[clip]"),
        ("compt.evaluation.finetune", "FineTune", "compt[mae]"),
    ],
)
def test_built_in_suites_load_without_their_tools_and_name_them(
    monkeypatch, tmp_path, module, suite, command
):
    from importlib import import_module

    kind = getattr(import_module(module), suite)
    monkeypatch.setattr("compt.evaluation.options.find_spec", lambda name: None)
    required = {"tasks": "any"} if suite == "LmEval" else {"data": Path(tmp_path)}
    with pytest.raises(PluginError) as error:
        kind(**required)
    assert error.value.do == f'pip install "{command}"'


# In Python


def test_the_same_from_python(work_dir, suites, tmp_path):
    folder, lines = work_dir(a="x" * 20, b="broken", c=None), []
    suite = dict(type="sizes", scale=2.0)
    evaluated = compt.evaluate(folder, suite, say=lines.append)
    assert suite == dict(type="sizes", scale=2.0), "the argument is the caller's"
    assert [result.status for result in evaluated.results] == ["evaluated", "failed"]
    assert "no such thing" in evaluated.results[1].reason
    assert evaluated.unfinished == ("c",)
    assert evaluated.metrics.keys() == {"a"}
    assert evaluated.metrics["a"]["here/share"].value == pytest.approx(0.4)
    assert any("failed" in line for line in lines)
    again = compt.evaluate([str(folder)], say=lines.append)
    assert again.results[0].status == "kept" and again.metrics == evaluated.metrics
    elsewhere = compt.evaluate(folder / "01_a", "sizes", out=tmp_path / "own", say=lines.append)
    assert elsewhere.results[0].file.is_relative_to(tmp_path / "own")


@pytest.mark.parametrize(
    ("paths", "suite", "words"),
    [
        ([], "sizes", "nothing to evaluate"),
        ("nowhere", "sizes", "There is no"),
        (None, dict(scale=2.0), "names a suite"),
        (None, dict(type="sizes", scal=2.0), "takes no argument 'scal'"),
        (None, None, "Nothing was evaluated before"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(work_dir, suites, paths, suite, words):
    folder = work_dir(a="x")
    with pytest.raises(ConfigError, match=words):
        compt.evaluate(folder if paths is None else paths, suite)
    assert not suites.measured
