"""Trackers: what a stage is called there, what its records hold, and what their failures cost."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend

import compt
from compt.errors import ConfigError, TrainingError
from compt.report.progress import Silent
from compt.report.record import StageRecord
from compt.training import tracking_guard, tracking_tools
from compt.training.tracking import RUNS, Cost, Tracking
from compt.training.tracking_guard import Tracker
from compt.training.tracking_tools import SAMPLES, TFLOPS, Labels, labelled, registering, tool_of

LABELS = Labels("icons", "vit-s", "chain", "clip", Path("work/icons/02_vit-s"))
VARIABLES = ("WANDB_", "MLFLOW_", "SWANLAB_")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)


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


def backend(kind, **options):
    return labelled([dict(type=kind, **options)], LABELS)[0]


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
    tracker = Tracker(SimpleNamespace(), tracking_tools.UNKNOWN)

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


def test_slow_failures_take_a_twentieth_of_the_time_at_most(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tracking_guard, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    tracker = Tracker(SimpleNamespace(), tracking_tools.UNKNOWN)
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


def test_a_full_disk_ends_the_stage_as_nothing_else_could_be_written(
    recording, toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(recording, "fails", range(1, 9))
    monkeypatch.setattr(recording, "error", OSError(errno.ENOSPC, "No space left on device"))
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Recording")]))
    with pytest.raises(TrainingError, match="No space left"):
        compt.train(toy, work_dir=tmp_path / "toys")
    assert recording.runs[0].closed == 1


def test_weights_and_biases_gets_group_run_job_and_axis_and_the_users_words_come_first():
    filled = backend("WandbVisBackend")
    init = filled["init_kwargs"]
    assert (init["group"], init["name"], init["job_type"]) == ("icons", "vit-s", "chain")
    assert init["dir"] == "work/icons/02_vit-s" and "clip" in init["tags"]
    assert dict(name="*", step_metric=TFLOPS) in filled["define_metric_cfg"]
    own = backend(
        "WandbVisBackend",
        init_kwargs=dict(group="mine", project="p"),
        define_metric_cfg={"val/loss": "min"},
    )
    assert own["init_kwargs"]["group"] == "mine" and own["init_kwargs"]["project"] == "p"
    # a definition of its own would else take the metric off the axis
    assert dict(name="val/loss", summary="min", step_metric=TFLOPS) in own["define_metric_cfg"]


@pytest.mark.parametrize(
    ("kind", "variable", "name"),
    [
        ("WandbVisBackend", "WANDB_RUN_GROUP", "group"),
        ("WandbVisBackend", "WANDB_DIR", "dir"),
        ("SwanlabVisBackend", "SWANLAB_GROUP", "group"),
    ],
)
def test_variables_of_the_environment_come_before_what_is_filled_in(
    kind, variable, name, monkeypatch
):
    assert name in backend(kind)["init_kwargs"]
    monkeypatch.setenv(variable, "mine")
    assert name not in backend(kind)["init_kwargs"]


def test_mlflow_has_one_store_and_one_experiment_a_chain(monkeypatch):
    filled = backend("MLflowVisBackend", tags=dict(owner="me"))
    assert (filled["exp_name"], filled["run_name"]) == ("icons", "vit-s")
    assert filled["tracking_uri"].endswith("work/icons/mlflow.db")
    assert filled["tags"] == filled["tags"] | {"compt.chain": "icons", "owner": "me"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    assert backend("MLflowVisBackend")["tracking_uri"] == "http://tracker"
    assert backend("MLflowVisBackend", tracking_uri="http://own")["tracking_uri"] == "http://own"


def test_mlflow_gets_names_and_lists_that_it_takes():
    config = Config(dict(work_dir="w", keys={"norm*": dict(lr=1)}, mixed=[dict(a=1), "b"]))
    taken = tool_of(dict(type="MLflowVisBackend")).config(config)
    assert taken.to_dict() == dict(
        work_dir="w", keys={"norm_": dict(lr=1)}, mixed=["{'a': 1}", "b"]
    )


def resumed(folder, kind, **options):
    visualizer = dict(vis_backends=[backend(kind, **options)])
    there = Tracking(folder, {}, Cost(plan=None), lambda text: None)
    return there.continued(visualizer)["vis_backends"][0]


def test_a_resumed_stage_goes_on_with_its_runs(tmp_path):
    new = {resumed(tmp_path, "WandbVisBackend")["init_kwargs"]["id"] for _ in range(2)}
    assert len(new) == 2, "runs must not share an id by accident"
    assert "id" not in resumed(tmp_path, "SwanlabVisBackend")["init_kwargs"]
    assert resumed(tmp_path, "MLflowVisBackend").get("tracked_config_keys") is None
    runs = dict(wandb="abc", mlflow="def", swanlab="ghi")
    (tmp_path / RUNS).write_text(json.dumps(dict(format=1, runs=runs)))
    assert resumed(tmp_path, "WandbVisBackend")["init_kwargs"]["id"] == "abc"
    assert resumed(tmp_path, "SwanlabVisBackend")["init_kwargs"]["id"] == "ghi"
    # MLflow never changes a parameter
    assert resumed(tmp_path, "MLflowVisBackend")["tracked_config_keys"] == []
    own = resumed(tmp_path, "WandbVisBackend", init_kwargs=dict(id="mine"))
    assert own["init_kwargs"]["id"] == "mine"


def test_a_missing_package_is_named_with_how_to_install_it(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(tracking_tools, "find_spec", lambda name: None)
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type="WandbVisBackend")]))
    with pytest.raises(ConfigError, match=r'pip install "compt\[wandb\]"'):
        compt.train(toy, work_dir=tmp_path / "toys")


def test_an_argument_that_wandb_does_not_have_is_named(monkeypatch):
    def init(project=None, group=None):
        pass

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr(tracking_tools, "find_spec", lambda name: True)
    with pytest.raises(ConfigError, match=r"no argument 'projct'.*project"):
        registering([dict(type="WandbVisBackend", init_kwargs=dict(projct="x"))])
