"""What a resumed run may change, what it may not, and what a failed one leaves."""

from __future__ import annotations

import copy
import errno
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import compt
from compt import ConfigError, TrainingError
from compt.errors import WorkDirError
from compt.files import check_recorded, read_json
from compt.report.progress import Silent
from compt.report.record import StageRecord
from compt.testing.toy import Toy
from compt.training.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import TOY

STAGES = ("01_a", "02_b", "03_c")


class Noted(Silent):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(folder: Path, config: Mapping[str, Any], **options: Any) -> list[str]:
    noted = Noted()
    compt.train(copy.deepcopy(dict(config)), work_dir=folder, progress=noted, **options)
    return noted.notes


def interrupted_by(patches: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> None:
    """Train until what is put in the place of the product's own functions interrupts it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, replacement in patches.items():
            patch.setattr(name, replacement)
        with pytest.raises(KeyboardInterrupt):
            train(folder, config)


def files(folder: Path, *stages: str) -> dict[str, bytes]:
    return {stage: (folder / stage / "weights.safetensors").read_bytes() for stage in stages}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, TOY)
    return folder


@pytest.fixture(scope="module")
def diverged_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("diverged") / "run"
    config = copy.deepcopy(TOY)
    config["chain"][1]["optim_wrapper"] = dict(optimizer=dict(type="SGD", lr=1e30))
    with pytest.raises(TrainingError):
        train(folder, config)
    assert (folder / "01_a" / "manifest.json").is_file()
    assert not (folder / "02_b" / "manifest.json").is_file()
    return folder


@pytest.fixture
def interrupted(diverged_once, tmp_path) -> Path:
    """A run whose second stage diverged after its first checkpoint."""
    return shutil.copytree(diverged_once, tmp_path / "run")


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    stop(folder, copy.deepcopy(TOY))
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path) -> tuple[Path, dict[str, Any]]:
    """A run that ended in the middle of its second stage, and its config."""
    return shutil.copytree(stopped_once, tmp_path / "run"), copy.deepcopy(TOY)


@pytest.fixture(scope="module")
def two_members(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    train(folder, {**TOY, "chain": TOY["chain"][:2]})
    return folder


def stop(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    def dying(self, batch, step=compt.training.loops.TrainLoop._step):
        if self.runner.work_dir.endswith("02_b") and self._iter == 5:
            raise KeyboardInterrupt
        step(self, batch)

    interrupted_by({"compt.training.loops.TrainLoop._step": dying}, folder, config)
    return config


@pytest.mark.parametrize(
    "change",
    [
        dict(train_dataloader=dict(batch_size=32, num_workers=0, pin_memory=True)),
        dict(val_dataloader=dict(batch_size=16)),
        dict(log_interval=2),
        dict(checkpoint=dict(interval=2, keep=1)),
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_touches_no_sample_may_change(stopped, whole, change):
    folder, config = stopped
    notes = train(folder, {**config, **change}, resume=True)
    assert files(folder, *STAGES) == files(whole, *STAGES)
    assert any(next(iter(change)) in note for note in notes)
    history = read_json(folder / "chain.json")["history"]
    assert history[-1]["changes"] == notes and len(history) == 1


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return the scalars of the second stage, but for times."""
    lines = [
        json.loads(line)
        for file in sorted(folder.glob("02_b/*/vis_data/scalars.json"))
        for line in file.read_text().splitlines()
    ]
    return [{key: line[key] for key in line.keys() - {"time", "data_time"}} for line in lines]


def test_a_resumed_stage_logs_what_it_would_have(tmp_path):
    """Means over earlier iterations, and a norm of gradients that is not new every iteration."""
    adam = dict(type="AdamW", lr=0.01)
    config = {
        **TOY,
        "chain": TOY["chain"][:2],
        "log_interval": 1,
        "log_processor": dict(window_size=4),
        "checkpoint": dict(interval=3),
        "optim_wrapper": dict(optimizer=adam, clip_grad=dict(max_norm=1.0), accumulative_counts=2),
    }
    train(tmp_path / "whole", config)
    stop(tmp_path / "run", config)
    before = logged(tmp_path / "run")
    train(tmp_path / "run", config, resume=True)
    whole, resumed = logged(tmp_path / "whole"), logged(tmp_path / "run")
    assert resumed[: len(before)] == before == whole[: len(before)]
    at = [line["step"] for line in whole].index(resumed[len(before)]["step"])
    assert resumed[len(before) :] == whole[at:]
    assert "grad_norm" in resumed[len(before)]


def test_a_members_own_workers_may_change_too(stopped, whole):
    folder, config = stopped
    config["chain"][1]["train_dataloader"] = dict(pin_memory=True)
    train(folder, config, resume=True)
    assert files(folder, *STAGES) == files(whole, *STAGES)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(seed=1), r"seed: not set -> 1"),
        (dict(train_dataloader=dict(batch_size=16)), r"stage 'b': 32 -> 16 samples an iteration"),
        (dict(evaluations=1), r"evaluations: 2 -> 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_touches_training_is_named(stopped, change, named):
    folder, config = stopped
    before = (folder / "chain.json").read_bytes()
    with pytest.raises(ConfigError, match=f"(?s){named}"):
        train(folder, {**config, **change}, resume=True)
    assert (folder / "chain.json").read_bytes() == before


def test_changed_data_is_refused_with_what_changed(stopped, monkeypatch):
    """An epoch has another length, and the iterations that are left other samples."""
    folder, config = stopped
    build = compt.testing.toy.Toy.build_dataset

    def half(self, split):
        data = build(self, split)
        return compt.testing.toy.TensorDataset(*(t[: len(t) // 2] for t in data.tensors))

    monkeypatch.setattr("compt.testing.toy.Toy.build_dataset", half)
    with pytest.raises(WorkDirError, match=r"data of the split 'train': samples 256 -> 128"):
        train(folder, config, resume=True)


def test_a_finished_run_does_not_ask_for_its_data_to_be_the_same(whole, monkeypatch, tmp_path):
    """Nothing of it is read again."""
    state = read_json(whole / "chain.json")
    assert state["data"]["train"]["samples"] == 256
    assert [stage["iters"] for stage in state["stages"]] == [8, 8, 6]
    assert state["world_size"] == 1


def test_other_numbers_of_processes_are_judged_by_the_samples_of_an_iteration(stopped, monkeypatch):
    folder, config = stopped
    for module in ("compt.chain", "compt.planning.planner"):
        monkeypatch.setattr(f"{module}.get_world_size", lambda: 2, raising=False)
    with pytest.raises(WorkDirError, match=r"stage 'b': 32 -> 64 samples.*\(1 -> 2\)"):
        train(folder, config, resume=True)
    config["train_dataloader"] = dict(batch_size=16)
    monkeypatch.setattr("compt.chain._Stage.run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(folder, config, resume=True)
    state = read_json(folder / "chain.json")
    assert state["world_size"] == 2
    assert "processes: 1 -> 2" in state["history"][-1]["changes"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_chain_is_extended(whole, two_members, tmp_path):
    """By as many members as are appended, with nothing trained again."""
    folder = shutil.copytree(two_members, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    notes = train(folder, TOY, resume=True)
    assert notes == ["appended: 'c'"]
    assert (
        before.items() <= {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}.items()
    )
    assert files(folder, *STAGES) == files(whole, *STAGES)
    assert read_json(folder / "chain.json")["members"] == ["a", "b", "c"]


def test_a_chain_goes_on_where_what_it_started_from_is_gone(two_members, tmp_path):
    """Follow the first member's export, which says the same beside sizes and weights."""
    source = shutil.copytree(two_members / "01_a" / "export", tmp_path / "source")
    first = dict(TOY["chain"][0], init=str(source), iters=0)
    config = dict(TOY, chain=[first, dict(TOY["chain"][1], iters=1)])
    train(tmp_path / "run", dict(config, chain=[first]))
    shutil.rmtree(source)
    with pytest.raises(ConfigError, match="source"):
        train(tmp_path / "other", config)
    assert train(tmp_path / "run", config, resume=True) == ["appended: 'b'"]


def test_an_optimizer_state_that_is_gone_is_said_to_be(two_members, tmp_path):
    folder = shutil.copytree(two_members, tmp_path / "run")
    config = copy.deepcopy(TOY)
    config["chain"][2]["grown"] = dict(optimizer_state=True)
    with pytest.raises(WorkDirError, match=r"(?s)state of the optimizer of 'b'.*checkpoint=dict"):
        train(folder, config, resume=True)


def test_an_optimizer_state_can_be_kept_for_members_to_come(tmp_path):
    folder = tmp_path / "run"
    keeping = dict(interval=3, keep=2, optimizer=True)
    train(folder, {**TOY, "chain": TOY["chain"][:2], "checkpoint": keeping})
    config = copy.deepcopy(TOY)
    config["chain"][2]["grown"] = dict(optimizer_state=True)
    train(folder, config, resume=True)
    assert (folder / "03_c" / "grown_optimizer.safetensors").is_file()


@pytest.mark.parametrize("chain", [TOY["chain"][1:], [TOY["chain"][i] for i in (0, 2)]])
def test_members_in_front_or_between_are_refused(whole, chain):
    with pytest.raises(WorkDirError, match=r"chain\.\d"):
        train(whole, {**TOY, "chain": chain}, resume=True)


def test_a_diverged_stage_is_repeated_with_another_rate(interrupted, whole):
    first = files(interrupted, "01_a")
    with pytest.raises(WorkDirError, match="--from-stage"):
        train(interrupted, TOY, resume=True)
    notes = train(interrupted, TOY, resume=True, from_stage="b")
    assert files(interrupted, *STAGES) == files(whole, *STAGES)
    assert files(interrupted, "01_a") == first
    assert (interrupted / "replaced" / "02_b.1").is_dir()
    assert any("chain.1.optim_wrapper.optimizer.lr" in note for note in notes)
    assert "02_b is kept as replaced/02_b.1" in notes
    assert read_json(interrupted / "chain.json")["history"][-1]["changes"] == notes
    report = compt.report.build.report([interrupted])
    assert [m.record.name for m in report.runs[0].members] == ["a", "b", "c"]


def test_a_finished_stage_is_repeated_with_all_after_it(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    config = {**TOY, "evaluations": 1}
    train(folder, config, resume=True, from_stage="c")
    assert files(folder, "01_a", "02_b", "03_c") == files(whole, "01_a", "02_b", "03_c")
    records = [StageRecord.read(folder / stage / "manifest.json") for stage in STAGES]
    assert [len(record.curve) for record in records] == [2, 2, 1]


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("nobody", {}, "no stage 'nobody'"),
        ("c", {}, "'b' before it is not finished"),
        ("b", dict(paradigm=dict(type="toy", samples=128)), r"paradigm\.samples: 256 -> 128"),
    ],
)
def test_what_cannot_be_repeated_is_refused(interrupted, stage, change, message):
    with pytest.raises(WorkDirError, match=message):
        train(interrupted, {**TOY, **change}, resume=True, from_stage=stage)
    assert not (interrupted / "replaced").exists()


def test_from_stage_needs_a_run_to_resume(tmp_path):
    with pytest.raises(ConfigError, match="resume"):
        train(tmp_path / "run", TOY, from_stage="b")
    with pytest.raises(WorkDirError, match="holds none"):
        train(tmp_path / "run", TOY, resume=True, from_stage="b")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("init", ["nowhere", "empty"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_start_leaves_nothing_that_blocks_the_next(whole, tmp_path, init, existing):
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "run"
    if existing:
        folder.mkdir()
        (folder / "slurm-17.out").write_text("mine")
    config = copy.deepcopy(TOY)
    config["chain"][0] |= dict(init=str(tmp_path / init), iters=0)
    with pytest.raises(ConfigError):
        train(folder, config)
    assert folder.exists() == existing
    train(folder, {**TOY, "chain": TOY["chain"][:1]})
    assert files(folder, "01_a") == files(whole, "01_a")


def test_a_run_that_was_killed_before_it_had_weights_blocks_nothing(tmp_path, whole):
    folder = tmp_path / "run"
    killing = {
        "compt.chain._Stage._grow": interrupt,
        "compt.workdir.WorkDir._remove_traces": lambda self: None,  # as by kill -9
    }
    interrupted_by(killing, folder, {**TOY, "seed": 7})
    assert (folder / "chain.json").is_file()
    for name in ("01_a/.growth.json.0a1b2c3d4e5f.tmp", ".status.json.77.tmp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("ha")  # as a write that was cut off leaves it
    train(folder, {**TOY, "chain": TOY["chain"][:1]})
    assert files(folder, "01_a") == files(whole, "01_a")
    assert not list(folder.rglob("*.tmp"))


def test_what_merely_lies_in_the_folder_stays(tmp_path):
    folder = tmp_path / "run"
    for name in ("logs/job.out", "logs/.chain.json.0a1b2c3d4e5f.tmp", ".notes.tmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (folder / ".chain.json.0a1b2c3d4e5f.tmp").write_text("of a run that was killed at once")
    train(folder, {**TOY, "chain": TOY["chain"][:1]})
    left = {*folder.glob("*.tmp"), *folder.glob("logs/*")}
    assert {path.relative_to(folder).as_posix() for path in left} == {
        "logs/job.out",
        "logs/.chain.json.0a1b2c3d4e5f.tmp",
        ".notes.tmp",
    }


@pytest.mark.parametrize("name", ["01_a", "report.json", "quality_vs_compute.png", "05_other"])
def test_what_would_be_overwritten_or_is_another_runs_is_named(tmp_path, name):
    folder = tmp_path / "run"
    if name == "05_other":
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text("{}")
    elif "." in name:
        folder.mkdir()
        (folder / name).write_text("mine")
    else:
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.txt").write_text("mine")
    with pytest.raises(WorkDirError, match=name):
        train(folder, TOY)
    assert (folder / name).exists()
    assert not (folder / "chain.json").exists()


@pytest.mark.parametrize(
    ("file", "stage"),
    [("02_b/weights.safetensors", "b"), ("03_c/grown.safetensors", "growth.json")],
)
def test_a_damaged_file_names_itself_and_what_can_be_done(tmp_path, file, stage):
    folder = tmp_path / "run"
    interrupted_by({"compt.chain.run_stage": only("03_c", compt.chain.run_stage)}, folder, TOY)
    flip(folder / file)
    with pytest.raises(WorkDirError, match=rf"(?s){Path(file).name}' is damaged.*{stage}"):
        train(folder, TOY, resume=True)


def test_a_damaged_file_that_is_made_again_no_longer_stops_the_run(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    flip(folder / "02_b" / "weights.safetensors")
    with pytest.raises(WorkDirError, match="--from-stage b"):
        train(folder, TOY, resume=True, from_stage="c")
    train(folder, TOY, resume=True, from_stage="b")
    assert files(folder, *STAGES) == files(whole, *STAGES)


def test_texts_of_an_export_may_be_edited_and_resuming_says_so(tmp_path):
    """Such as a tokenizer: weights that were damaged are refused, texts are nobody's source."""
    folder = tmp_path / "run"
    export = Toy.export

    def with_texts(self, model, path):
        export(self, model, path)
        for name in ("config.json", "README.md", "tokenizer/vocab.txt"):
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Toy, "export", with_texts)
        train(folder, TOY)
    assert train(folder, TOY, resume=True) == []
    (folder / "02_b" / "export" / "config.json").write_text("mine")
    (folder / "02_b" / "export" / "README.md").write_text("mine")
    (folder / "02_b" / "export" / "tokenizer" / "vocab.txt").unlink()
    notes = train(folder, TOY, resume=True)
    assert [note.partition(" ")[0] for note in notes] == [
        "02_b/export/config.json",
        "02_b/export/tokenizer/vocab.txt",
    ]
    assert all("--from-stage b" in note for note in notes)
    check_recorded(folder / "02_b")


def altered(path: Path, key: str) -> None:
    """Turn a digit of a record into another, so that it can still be read."""
    before = path.read_text()
    found = re.search(rf'"{key}": (?:[0-9.e-]*|"[0-9a-f]*)([0-9])', before)
    position, digit = found.start(1), int(found[1])
    path.write_text(f"{before[:position]}{(digit + 1) % 10}{before[position + 1 :]}")


def test_a_record_that_changed_and_can_be_read_is_said(whole, stopped, tmp_path):
    """Of a finished stage it stops nothing; what a stage is being trained from does."""
    folder = shutil.copytree(whole, tmp_path / "finished")
    altered(folder / "01_a" / "manifest.json", "params")
    altered(folder / "02_b" / "growth.json", "copied")
    notes = train(folder, TOY, resume=True)
    assert all("is damaged: it is not what was written" in note for note in notes)
    assert "01_a/manifest.json" in notes[0] and "--from-stage a" in notes[0]
    assert "02_b/growth.json" in notes[1] and "--from-stage b" in notes[1]
    under_way, config = stopped
    altered(under_way / "02_b" / "growth.json", "copied")
    with pytest.raises(WorkDirError, match=r"(?s)growth\.json' is damaged.*remove it"):
        train(under_way, config, resume=True)


def test_records_of_versions_without_a_checksum_are_read(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    for record in folder.glob("*/manifest.json"):
        content = json.loads(record.read_text())
        assert len(content.pop("checksum")) == 64
        record.write_text(json.dumps(content))
    assert train(folder, TOY, resume=True) == []


@pytest.mark.parametrize("init", ["02_b", "02_b/export", "02_b/export/toy.safetensors"])
def test_a_damaged_stage_starts_no_other_chain(two_members, tmp_path, init):
    folder = shutil.copytree(two_members, tmp_path / "run")
    for name in ("weights.safetensors", "export/toy.safetensors"):
        flip(folder / "02_b" / name)
    chain = [dict(TOY["chain"][1], init=str(folder / init), iters=0)]
    with pytest.raises(WorkDirError, match=r"is damaged: its SHA-256"):
        train(tmp_path / "other", {**TOY, "chain": chain})


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "deleted"])
def test_chain_json_has_a_copy(stopped, whole, cut):
    folder, config = stopped
    state = folder / "chain.json"
    was = state.read_bytes()
    if cut:
        state.write_bytes(was[:40])
    else:
        state.unlink()
    with pytest.raises(WorkDirError, match="--resume"):
        train(folder, config)
    notes = train(folder, config, resume=True)
    assert any("chain.json" in note and "from its copy" in note for note in notes)
    assert read_json(state)["config"] == json.loads(was)["config"]
    assert files(folder, *STAGES) == files(whole, *STAGES)


def test_a_chain_json_without_a_copy_is_refused_by_name(stopped):
    """As of an older version."""
    folder, config = stopped
    (folder / ".chain.json").unlink()
    (folder / "chain.json").write_text("{")
    with pytest.raises(WorkDirError, match=r"chain\.json.*(\n.*)*Restore"):
        train(folder, config, resume=True)


def test_what_is_damaged_and_no_longer_read_is_said(stopped, whole):
    folder, config = stopped
    shutil.copytree(whole / "02_b", folder / "02_b", dirs_exist_ok=True)
    shutil.rmtree(folder / "02_b" / "checkpoints")
    flip(folder / "01_a" / "weights.safetensors")
    flip(folder / "02_b" / "grown.safetensors")
    notes = train(folder, config, resume=True)
    assert files(folder, "02_b", "03_c") == files(whole, "02_b", "03_c")
    for stage, file in (("a", "01_a/weights"), ("b", "02_b/grown")):
        assert any(f"{file}.safetensors" in n and f"--from-stage {stage}" in n for n in notes)


def test_a_stage_without_a_manifest_is_trained_again_and_said(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "01_a" / "manifest.json").unlink()
    (note,) = train(folder, TOY, resume=True)
    assert "01_a/manifest.json is missing, though 02_b is finished" in note
    assert files(folder, *STAGES) == files(whole, *STAGES)


def test_checkpoints_that_a_finished_stage_had_no_time_to_drop_are_dropped(stopped):
    folder, config = stopped
    (folder / "01_a" / "checkpoints").mkdir()
    (folder / "01_a" / "checkpoints" / "iter_00000008.pt").write_bytes(b"left over")
    train(folder, config, resume=True)
    assert not [*folder.glob("*/checkpoints")]


def test_checkpoints_that_cannot_be_dropped_are_said_and_dropped_on_resume(
    whole, tmp_path, monkeypatch
):
    """A folder that became read-only after the manifest was written: the stage is finished."""
    folder, remove = tmp_path / "run", shutil.rmtree

    def refuse(path, *arguments, **options):
        if Path(path) == folder / "03_c" / "checkpoints":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        remove(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    (note,) = train(folder, TOY)
    assert "03_c/checkpoints' could not be removed: Permission denied." in note
    assert "--resume removes them" in note
    assert files(folder, *STAGES) == files(whole, *STAGES)
    (note,) = train(folder, TOY, resume=True)
    assert "--resume removes them" in note
    monkeypatch.undo()
    assert train(folder, TOY, resume=True) == []
    assert not [*folder.glob("*/checkpoints")]


def test_a_cut_record_says_how_it_is_made_again(stopped, whole):
    folder, config = stopped
    for record in ("01_a/manifest.json", "02_b/growth.json"):
        path = folder / record
        path.write_bytes(path.read_bytes()[:30])
        with pytest.raises(WorkDirError, match=rf"(?s){path.name}.*remove it") as caught:
            train(folder, config, resume=True)
        Path(caught.value.where).unlink()
    train(folder, config, resume=True)
    assert files(folder, *STAGES) == files(whole, *STAGES)


def test_a_finished_stages_cut_growth_record_is_said_with_a_way_that_makes_it_again(stopped, whole):
    folder, config = stopped
    path = folder / "01_a" / "growth.json"
    path.write_bytes(path.read_bytes()[:30])
    copied = shutil.copytree(folder, folder.parent / "copied")
    notes = train(folder, config, resume=True)
    (note,) = (note for note in notes if "growth.json" in note)
    assert "--from-stage a" in note and "remove it" not in note
    train(copied, config, resume=True, from_stage="a")
    assert (copied / "01_a" / "growth.json").stat().st_size > 30
    assert files(copied, *STAGES) == files(folder, *STAGES) == files(whole, *STAGES)


def test_a_process_that_waits_between_stages_says_that_another_has_ended(tmp_path, monkeypatch):
    def closed():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")

    monkeypatch.setattr("compt.chain.barrier", closed)
    with pytest.raises(TrainingError, match="Another process of the run has ended"):
        train(tmp_path / "run", TOY)


def test_what_could_not_be_read_does_not_outlive_what_is_written_since(tmp_path):
    """It has a higher number, and would be kept in the place of each new checkpoint."""
    for iteration in (6, 9):
        (tmp_path / f"iter_{iteration:08d}.pt").write_bytes(b"half a checkpoint")
    warnings: list[str] = []
    assert load_checkpoint(tmp_path, warnings.append) is None and len(warnings) == 2
    for iteration in (3, 6):
        save_checkpoint({"iter": iteration}, tmp_path, iteration, keep=1)
        assert load_checkpoint(tmp_path, warnings.append) == {"iter": iteration}
    assert [path.name for path in tmp_path.iterdir()] == ["iter_00000006.pt"]


def test_a_checkpoint_that_memory_is_too_short_for_is_not_taken_for_damaged(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    save_checkpoint({"iter": 3}, tmp_path, 3, keep=1)
    monkeypatch.setattr("torch.load", fail)
    with pytest.raises(MemoryError):
        load_checkpoint(tmp_path, lambda text: None)


def only(stage: str, run: Any) -> Any:
    def stopping(config, *arguments):
        if config.work_dir.endswith(stage):
            raise KeyboardInterrupt
        return run(config, *arguments)

    return stopping


def flip(path: Path) -> None:
    """Change one bit near the end of a file."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x10
    path.write_bytes(content)
