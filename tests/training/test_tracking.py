"""Trackers: what a stage is called there, what its records hold, and what their failures cost."""

from __future__ import annotations

import errno
import gc
import json
import sys
from types import SimpleNamespace

import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend

import compt
from compt.errors import ConfigError, PluginError, TrainingError
from compt.interfaces import Tracker
from compt.interfaces.tracker import SAMPLES, TFLOPS
from compt.registry import TRACKERS
from compt.report.progress import Silent
from compt.report.record import StageRecord
from compt.training import tracking_guard, tracking_tools
from compt.training.runner import StageRunner
from compt.training.tracking import RUNS
from compt.training.tracking_guard import GuardedBackend


class Recording(BaseVisBackend):
    """Keeps what it gets, and fails in the records of ``fails``."""

    runs = []
    fails = range(0)
    error = ConnectionError("the server is gone")

    def __init__(self, save_dir=None):
        super().__init__(save_dir)
        self.config, self.scalars, self.closed, self.attempts = None, [], 0, 0
        self.runs.append(self)

    experiment = property(lambda self: self)

    def _init_env(self):
        pass

    def add_config(self, config, **options):
        self.config = config

    def add_scalars(self, scalar_dict, step=0, file_path=None, **options):
        self.attempts += 1
        if self.attempts in self.fails:
            raise self.error
        self.scalars.append({"step": step, **scalar_dict})

    def close(self):
        self.closed += 1


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setitem(VISBACKENDS.module_dict, "Recording", Recording)
    monkeypatch.setattr(Recording, "runs", [])
    return Recording


def test_a_chain_is_one_axis_of_compute_and_every_run_knows_where_it_comes_from(
    recording, toy, tmp_path
):
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Recording")]))
    toy["chain"] = toy["chain"][:2]
    folder = compt.train(toy, work_dir=tmp_path / "toys")
    first, second = recording.runs
    before, record = (StageRecord.read(path) for path in sorted(folder.glob("*/manifest.json")))
    assert first.scalars[-1][TFLOPS] == pytest.approx(before.flops.total / 1e12)
    assert second.scalars[-1][TFLOPS] == pytest.approx(
        (before.flops.total + record.flops.total) / 1e12
    )
    assert second.scalars[-1][SAMPLES] == before.samples + record.samples
    assert {"val/accuracy", TFLOPS} <= second.scalars[-1].keys()
    lineage = second.config.lineage
    assert (lineage.chain, lineage.member, lineage.source) == ("toys", "b", "a")
    assert (lineage.grower, lineage.exact) == ("lossless", True)
    assert sum(lineage.tensors.values()) == len(record.growth.params)
    assert first.config.lineage.get("source") is None
    assert (first.closed, second.closed) == (1, 1)


def test_stages_that_are_done_leave_no_models_behind(recording, toy, tmp_path):
    def runners():
        gc.collect()
        return [kept for kept in gc.get_objects() if type(kept) is StageRunner]

    num_earlier = len(runners())  # other tests may keep theirs
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Recording")]))
    compt.train(toy, work_dir=tmp_path / "toys")
    assert len(recording.runs) == 3
    assert len(runners()) == num_earlier


def test_a_tracker_that_fails_loses_records_and_not_the_training(
    recording, toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(recording, "fails", range(3, 100))
    toy.update(
        visualizer=dict(
            type="Visualizer", vis_backends=[dict(type="Recording"), dict(type="LocalVisBackend")]
        ),
        log_interval=1,
        default_hooks=dict(logger=dict(interval=1)),
    )
    toy["chain"] = toy["chain"][:1]
    progress = Notes()
    folder = compt.train(toy, work_dir=tmp_path / "toys", progress=progress)
    (lines,) = folder.glob("01_a/*/vis_data/scalars.json")
    total = len(lines.read_text().splitlines())
    fails, lost = [note for note in progress.notes if "Recording" in note]
    assert "fails" in fails and "the server is gone" in fails
    # one record is its start
    assert f"lost {total - 2} of {total + 1} records" in lost
    (run,) = recording.runs
    assert run.attempts == 3, "a tracker that fails is left alone for a while"


def test_a_tracker_is_tried_again_after_a_pause_and_its_run_begins_then(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tracking_guard, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    sent, begun = [], []
    tracker = GuardedBackend(SimpleNamespace(), tracking_tools.UNKNOWN)

    def begin():
        if clock[0] < 25:
            raise ConnectionError
        begun.append(clock[0])

    tracker.begin = begin
    for clock[0] in range(60):
        tracker.record(lambda: sent.append(clock[0]))
    assert begun == [30]  # tried at 0, at 10 and, after twice the pause, at 30
    assert sent == list(range(30, 60))
    assert (tracker.num_lost, tracker.num_records) == (30, 60)


def test_a_tracker_that_cannot_take_scalars_loses_them():
    class Picky(Tracker):
        def scalars(self, scalars, step):
            raise KeyError("loss")

    backend, told = GuardedBackend(SimpleNamespace(add_scalars=None), Picky()), []
    backend.on_failure = told.append
    backend.add_scalars({"accuracy": 1.0}, 3)
    assert (backend.num_records, backend.num_lost) == (1, 1)
    assert "KeyError" in told[0]


def test_slow_failures_take_a_twentieth_of_the_time_at_most(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tracking_guard, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    tracker = GuardedBackend(SimpleNamespace(), tracking_tools.UNKNOWN)
    waited = 0.0

    def send():
        nonlocal waited
        waited += 90
        clock[0] += 90
        raise TimeoutError

    while clock[0] < 86_400:
        clock[0] += 1
        tracker.record(send)
    assert 90 < waited <= 86_400 / 20


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (MemoryError(), "Out of memory"),
        (RuntimeError("can't start new thread"), "Out of memory"),
    ],
)
def test_a_tracker_that_the_machine_has_no_room_for_ends_the_stage(
    recording, toy, tmp_path, monkeypatch, error, message
):
    monkeypatch.setattr(recording, "fails", range(1, 9))
    monkeypatch.setattr(recording, "error", error)
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Recording")]))
    with pytest.raises(TrainingError, match=message):
        compt.train(toy, work_dir=tmp_path / "toys")
    assert recording.runs[0].closed == 1


class Recorder(Tracker):
    """Names runs, and knows them again."""

    takes_files = True
    attached = []

    def labelled(self, options, labels):
        return {"save_dir": f"{labels.chain}/{labels.member}/{labels.paradigm}", **options}

    def begin(self, backend, content, run_id):
        super().begin(backend, content, run_id)
        return run_id or f"run of {content['lineage']['member']}"

    def attach(self, backend, files):
        self.attached.append({file.name for file in files})


def test_a_tracker_may_come_from_a_plug_in(recording, toy, tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS.module_dict, "Recording", Recorder)
    monkeypatch.setattr(Recorder, "attached", [])
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Recording")]))
    toy["chain"] = toy["chain"][:1]
    folder = compt.train(toy, work_dir=tmp_path / "toys")
    (run,) = recording.runs
    assert run._save_dir == "toys/a/toy"
    assert json.loads((folder / "01_a" / RUNS).read_text())["runs"] == {"Recording": "run of a"}
    (files,) = Recorder.attached
    assert {"report.json", "manifest.json", "config.py"} <= files


def test_a_broken_tracker_is_named_before_anything_is_trained(
    recording, toy, tmp_path, monkeypatch
):
    monkeypatch.setitem(TRACKERS.module_dict, "Recording", Notes)
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Recording")]))
    with pytest.raises(PluginError, match=r"tracker 'Recording'.*no.* subclass of compt.Tracker"):
        compt.train(toy, work_dir=tmp_path / "toys")
    assert not recording.runs


def test_a_missing_package_is_named_with_how_to_install_it(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(tracking_tools, "find_spec", lambda name: None)
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="WandbVisBackend")]))
    with pytest.raises(ConfigError, match=r'pip install "compt\[wandb\]"'):
        compt.train(toy, work_dir=tmp_path / "toys")
