"""Read the work folders of strangers: nothing runs, and no path leads out of them."""

from __future__ import annotations

import json
import os

import pytest
from mmengine.registry import PARAM_SCHEDULERS

from compt.cli import export
from compt.config import load_config
from compt.errors import ConfigError, WorkDirError
from compt.evaluation.lm_eval import LmEval
from compt.evaluation.run import _check_repeatable
from compt.evaluation.subjects import find
from compt.files import check_digests, check_recorded
from compt.registry import foreign_configs
from compt.report.build import report as build_report
from compt.report.evaluations import Evaluation
from compt.report.pilots import read_pilots
from tests.report.test_pilots import pilot
from tests.report.work_folders import CHAIN, change, make_run


@pytest.fixture
def work(tmp_path):
    """A work folder of two members."""
    return make_run(tmp_path / "run", "chain", CHAIN)


@pytest.mark.parametrize("name", ["../../x", "/etc", "a/b", "..", "a\nb", "\x1b[2J", "", "x" * 101])
def test_members_whose_names_are_paths(work, name):
    change(work / "chain.json", members=[name, "small"])
    for read in (build_report, find):
        with pytest.raises(WorkDirError, match="is no name of a member") as caught:
            read([work])
        assert "chain.json" in caught.value.where and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "export/../../x", "..\\x", "C:x"])
def test_manifests_that_name_files_outside(work, name):
    stage = work / "01_tiny"
    change(stage / "manifest.json", files={name: "0" * 64})
    with pytest.raises(WorkDirError, match="outside of its folder") as caught:
        check_digests(stage, {name: "0" * 64}, "train again")
    assert str(stage) in str(caught.value)
    if not name.startswith(("/", "C")):
        with pytest.raises(WorkDirError, match="outside of its folder"):
            check_recorded(stage)


def test_the_config_of_a_pilot_is_not_run(toy, tmp_path, trap):
    toy["chain"] = toy["chain"][:2]
    folder = pilot(tmp_path / "pilot", toy)
    read_pilots([folder], load_config(toy))
    file = folder / "01_a" / "config.py"
    file.write_text(trap.code + file.read_text())
    with pytest.raises(ConfigError, match="more than literals") as caught:
        read_pilots([folder], load_config(toy))
    assert f"{file}, line 1" in caught.value.where


def test_nor_are_the_types_in_it_imported(toy, tmp_path, trap):
    toy["chain"] = toy["chain"][:2]
    folder = pilot(tmp_path / "pilot", toy)
    file = folder / "01_a" / "config.py"
    file.write_text(f"{file.read_text()}\nparam_scheduler = [{trap.config!r}]\n")
    with pytest.raises(ConfigError, match=r"'os\.mkdir'"):
        read_pilots([folder], load_config(toy))


@pytest.mark.parametrize("text", ["", "optim_wrapper = 5\ntrain_cfg = 5\nparam_scheduler = 5\n"])
def test_a_config_of_a_pilot_that_is_none(toy, tmp_path, text):
    toy["chain"] = toy["chain"][:2]
    folder = pilot(tmp_path / "pilot", toy)
    (folder / "01_a" / "config.py").write_text(text)
    with pytest.raises(ConfigError, match="no stage that was trained"):
        read_pilots([folder], load_config(toy))


def test_an_export_imports_no_types_of_the_folders_config(work, trap):
    change(
        work / "chain.json", config={"paradigm": {"type": "mae", "data_preprocessor": trap.config}}
    )
    with pytest.raises(ConfigError, match=r"'os\.mkdir'"):
        export._config(work / "01_tiny")


def test_plug_ins_in_a_folders_config_are_no_types(work):
    config = {"paradigm": {"type": "compt-toy:toy", "data": {"type": "folder", "train": "x"}}}
    change(work / "chain.json", config=config)
    assert export._config(work / "01_tiny") == config


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": 1, "x": ' + "[" * 900 + "]" * 900 + "}",
        '{"format": 1e400}',
        "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
        '{"format": 1, "flops": {"total": 1' + "0" * 400 + "}}",
    ],
)
@pytest.mark.parametrize("file", ["chain.json", "01_tiny/manifest.json", "01_tiny/growth.json"])
def test_json_that_no_program_wrote(work, file, text):
    if file == "01_tiny/growth.json" and '"x"' in text:
        return  # what it has not heard of is passed over
    (work / file).write_text(text)
    read = (lambda: build_report([work])) if "growth" not in file else (lambda: growth(work / file))
    with pytest.raises(WorkDirError) as caught:
        read()
    assert file.rpartition("/")[2] in str(caught.value)


def growth(file):
    from compt.report.growth import GrowthRecord

    return GrowthRecord.read(file)


def test_numbers_beyond_all_bounds(work):
    manifest = work / "01_tiny" / "manifest.json"
    change(manifest, seconds=10**400)
    with pytest.raises(WorkDirError, match="damaged"):
        build_report([work])


def test_links_to_what_has_no_end(work):
    (work / "01_tiny" / "manifest.json").unlink()
    os.symlink("/dev/zero", work / "01_tiny" / "manifest.json")
    with pytest.raises(WorkDirError, match="no manifest"):
        build_report([work])
    (work / "chain.json").unlink()
    os.symlink("/dev/zero", work / "chain.json")
    with pytest.raises(WorkDirError, match="not the work folder"):
        build_report([work])


def test_texts_of_records_reach_no_terminal_as_commands(work):
    from compt.report.record import StageRecord

    manifest = work / "01_tiny" / "manifest.json"
    change(manifest, environment={"device": "\x1b]0;title\x07cpu\x9b2J", "a\x1bb": "[/bold]"})
    record = StageRecord.read(manifest)
    assert record.environment == {"device": "\\x1b]0;title\\x07cpu\\x9b2J", "a\\x1bb": "[/bold]"}
    assert json.dumps(record.environment).isascii()


def test_programs_are_not_run_on_a_work_folders_word():
    assert LmEval.runs_code == {"include_path"}
    options = {"tasks": ["x"], "include_path": None}
    measured = Evaluation(suite="lm_eval", options=options, metrics={}, weights={})
    _check_repeatable(measured)
    options["include_path"] = "/tmp/evil"
    with pytest.raises(ConfigError, match="not run on a work folder's word") as caught:
        _check_repeatable(measured)
    assert "--option include_path=/tmp/evil" in caught.value.do


def test_types_of_mmengine_are_known_before_anything_has_loaded_them(monkeypatch):
    """A command that only reads work folders has not built a schedule yet."""
    loaded = []

    def load(name):
        loaded.append(name)
        PARAM_SCHEDULERS.module_dict.update(registered)

    registered = dict(PARAM_SCHEDULERS.module_dict)
    monkeypatch.setattr(PARAM_SCHEDULERS, "_module_dict", {})
    monkeypatch.setattr(foreign_configs.importlib, "import_module", load)
    foreign_configs.check_types({"type": "LinearLR"}, "config.py")
    assert loaded == ["mmengine.runner"] and "LinearLR" in registered
    with pytest.raises(ConfigError, match="LinearLRX"):
        foreign_configs.check_types({"type": "LinearLRX"}, "config.py")


@pytest.mark.parametrize(
    "values",
    [
        dict(config=[1]),
        dict(config={"chain": [5]}),
        dict(config={"chain": {"a": 1}}),
        dict(history=["x"]),
        dict(data={"train": [1]}),
        dict(stages=[{"x": 1}]),
    ],
)
def test_states_of_other_shapes(work, values):
    change(work / "chain.json", **values)
    with pytest.raises(WorkDirError, match="damaged"):
        build_report([work])


def test_a_metric_that_is_no_number(work):
    metrics = {"val/top1": {"value": 0.5, "chance": [1]}}
    change(work / "02_small" / "manifest.json", metrics=metrics)
    with pytest.raises(WorkDirError, match="damaged"):
        build_report([work])
