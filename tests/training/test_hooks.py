"""What a stage tells while it is trained, and what is left of it."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest

import compt
from compt.report.progress import Silent
from compt.report.record import StageRecord
from compt.report.watch.status import RunStatus
from compt.training.hooks import ProgressHook
from tests.conftest import TOY


class Listener(Silent):
    """Writes down what a stage tells, with the state of the run at that moment."""

    def __init__(self):
        self.told = []

    def follow(self, status):
        self.status = status

    def report(self, iteration, iters, loss):
        self.told.append((iteration, "no loss" if math.isnan(loss) else "loss"))

    def evaluating(self):
        stage = self.status().current
        self.told.append((stage.iteration, stage.state))

    def evaluated(self, curve):
        self.told.append(("evaluations", len(curve)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a chain of one stage, and what it told."""
    config, listener = copy.deepcopy(TOY), Listener()
    config["chain"] = [{**config["chain"][0], "iters": 4}]
    folder = tmp_path_factory.mktemp("hooks") / "run"
    return compt.train(config, work_dir=folder, progress=listener), listener.told


def test_a_stage_tells_of_iterations_and_evaluations(trained):
    assert trained[1] == [
        (0, "no loss"),
        (1, "loss"),
        (2, "loss"),
        (2, "evaluating"),
        ("evaluations", 0),
        ("evaluations", 1),
        (3, "loss"),
        (4, "loss"),
        (4, "evaluating"),
        ("evaluations", 1),
        ("evaluations", 2),
    ], "and nothing of putting in the weights to deliver"


def test_slow_iterations_are_told_sooner_than_at_the_interval(monkeypatch):
    listener, now = Listener(), iter(range(0, 1000, 3))
    monkeypatch.setattr("compt.training.hooks.time.monotonic", lambda: next(now))
    hook = ProgressHook(listener, interval=1000)
    runner = SimpleNamespace(iter=0, max_iters=1000, train_loop=SimpleNamespace(curve=[]))
    hook.before_train_epoch(runner)
    for runner.iter in range(12):
        hook.after_train_iter(runner, runner.iter, None, {"loss": 1.0})
    assert [told for told, _ in listener.told] == [0, 4, 8, 12], "more than 10 s of 3 s each"


def test_a_run_leaves_its_status(trained):
    status = RunStatus.read(trained[0] / "status.json")
    (stage,) = status.stages
    assert (status.state, status.share, stage.state) == ("finished", 1.0, "done")
    assert [samples for samples, _ in stage.losses] == [32, 64, 96, 128]
    assert [samples for samples, _ in stage.points] == [64, 128]
    assert stage.metric == "val/accuracy"


def test_a_stage_records_what_it_took(trained):
    record = StageRecord.read(trained[0] / "01_a" / "manifest.json")
    assert record.peak_memory_bytes > 50 * 2**20
    assert 0 < record.evaluation_seconds < 60
    assert 0 < record.data_seconds < record.seconds
    assert 0 < record.checkpoint_seconds < 60
    assert record.samples_per_second > 0
