"""status.json: what is written is read, by this compt and others."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from compt.errors import WorkDirError
from compt.report.watch.status import Reference, RunStatus
from tests.report.watch.statuses import METRIC, RUNNING, run_status, stage

STATUS = run_status(
    stage("a", "done"),
    RUNNING,
    references=(Reference(label="b alone", samples=1000, points=((500.0, 0.2),), **METRIC),),
    left_out=("data of 'train': 1 left out",),
    host="here",
    pid=7,
)


def test_what_is_written_is_read(tmp_path):
    STATUS.write(tmp_path / "status.json")
    assert RunStatus.read(tmp_path / "status.json") == STATUS
    assert os.listdir(tmp_path) == ["status.json"]


def test_another_versions_status_is_read(tmp_path):
    content = STATUS.to_json()
    content["invented_later"] = content["stages"][0]["invented_later"] = 1
    del content["left_out"], content["stages"][0]["chance"]
    path = tmp_path / "status.json"
    path.write_text(json.dumps(content))
    old = replace(STATUS.stages[0], chance=None)
    assert RunStatus.read(path) == replace(STATUS, left_out=(), stages=(old, RUNNING))


@pytest.mark.parametrize(
    ("old", "new"), [('"stages"', '"stgs"'), ('"format": 1', '"format": 2'), ("{", "")]
)
def test_a_damaged_status_is_named(tmp_path, old, new):
    path = tmp_path / "status.json"
    STATUS.write(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(WorkDirError, match=r"status\.json") as caught:
        RunStatus.read(path)
    assert caught.value.where == str(path)


def test_a_write_that_fails_leaves_the_old_status(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    STATUS.write(path)

    def full(*paths):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        run_status(RUNNING).write(path)
    assert RunStatus.read(path) == STATUS


def test_where_a_run_is():
    assert STATUS.current == RUNNING
    assert STATUS.share == 0.7
    assert run_status(stage("a", "done"), stage("b")).current is None
    assert run_status(stage("a", flops=0.0)).share == 0
