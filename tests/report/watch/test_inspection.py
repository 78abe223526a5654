"""What a work folder tells of its run, whose process is alive, gone, or on another machine."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from compt.errors import WorkDirError
from compt.report.state import ChainState, PlannedStage
from compt.report.watch import machine
from compt.report.watch.inspection import SILENT_AFTER, goes_on, inspect, with_companions
from tests.report.records import stage_record
from tests.report.watch.statuses import RUNNING, run_status, stage

GONE = 2**22 + 1
"""No process has this number."""


@pytest.fixture
def folder(tmp_path):
    """A work folder without a status."""
    ChainState("chain", ("a", "b"), {}, (PlannedStage("a", 8, 4),)).write(tmp_path / "chain.json")
    return tmp_path


def here(**changes):
    """A running run of this process."""
    pid = os.getpid()
    keys = dict(host=machine.host_name(), boot=machine.boot_id(), pid=pid, written=time.time())
    keys["process_started"] = machine.process_started(pid)
    return run_status(stage("a", "done"), RUNNING, **{**keys, **changes})


def life(folder, status):
    status.write(folder / "status.json")
    return inspect(folder).life


@pytest.fixture
def locked(folder):
    """The run's lock, held."""
    with (folder / ".chain.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_run_is_alive_while_its_process_is(folder):
    old = time.time() - 1e6
    assert life(folder, here(written=old)) == "running"
    assert life(folder, here(pid=GONE)) == "killed"
    assert life(folder, here(process_started="1")) == "killed", "another process has its number"


@pytest.mark.usefixtures("locked")
def test_a_run_in_another_container_is_alive_while_it_holds_its_lock(folder):
    old = time.time() - 1e6
    assert life(folder, here(pid=GONE)) == "running"
    assert life(folder, here(host="other", boot="other", written=old)) == "running"


def test_a_run_on_another_machine_is_alive_while_it_gives_signs(folder):
    elsewhere = here(host="other", boot="other")
    assert life(folder, elsewhere) == "running"
    old = replace(elsewhere, written=time.time() - SILENT_AFTER - 1)
    assert life(folder, old) == "silent"
    assert life(folder, replace(old, host=machine.host_name())) == "killed", "started again"


@pytest.mark.parametrize("state", ["finished", "interrupted", "failed"])
def test_a_run_that_has_said_how_it_ended_is_believed(folder, state):
    assert life(folder, here(state=state, pid=GONE)) == state


def test_a_killed_process_that_nobody_waited_for_is_gone():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert machine.process_started(process.pid)
    finally:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert machine.process_started(process.pid) == ""
    process.communicate()
    assert machine.process_started(process.pid) == ""


def test_asking_for_a_lock_does_not_take_it(folder, locked):
    lock = folder / ".chain.lock"
    assert machine.is_locked(lock) is True
    assert machine.is_locked(folder / "none") is False
    assert not (folder / "none").exists()
    with (folder / "other").open("w") as file:
        assert machine.is_locked(folder / "other") is False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_older_folder_is_told_from_its_records(folder):
    record = stage_record("a", [(4, 1.0, 1.0, 2.0), (8, 2.0, 2.0, 1.5)], batch_size=4)
    record.write(folder / "01_a" / "manifest.json")
    sighting = inspect(folder)
    assert (sighting.life, sighting.is_recorded) == ("stopped", False)
    first, second = sighting.status.stages
    assert (first.state, first.points, first.seconds) == ("done", ((16, 2.0), (32, 1.5)), 1.0)
    assert second.state == "waiting"
    record = replace(record, name="b", index=1)
    record.write(folder / "02_b" / "manifest.json")
    assert inspect(folder).life == "finished"


def test_a_finished_run_that_could_not_say_so_is_told_by_its_records(folder):
    """As where the folder had become read-only, or its disk full."""
    here(pid=GONE).write(folder / "status.json")
    record = stage_record("a", [(4, 1.0, 1.0, 2.0), (8, 2.0, 2.0, 1.5)], batch_size=4)
    record.write(folder / "01_a" / "manifest.json")
    assert inspect(folder).life == "killed", "the other stage is missing"
    replace(record, name="b", index=1).write(folder / "02_b" / "manifest.json")
    sighting = inspect(folder)
    assert (sighting.life, sighting.status.state, sighting.is_recorded) == (
        "finished",
        "finished",
        True,
    )
    assert [stage.state for stage in sighting.status.stages] == ["done", "done"]


@pytest.mark.usefixtures("locked")
def test_an_older_run_is_alive_while_it_holds_its_lock(folder):
    assert inspect(folder).life == "running"


def test_a_folder_brings_along_its_members_alone(folder):
    alone = folder.with_name(f"{folder.name}_individual")
    ChainState("individual", ("a", "b"), {}).write(alone / "chain.json")
    assert with_companions([folder]) == [folder]
    ChainState("chain", ("a", "b"), {"compare": True}).write(folder / "chain.json")
    assert with_companions([folder]) == with_companions([folder, alone]) == [folder, alone]


def test_the_members_alone_are_waited_for(folder):
    """Until the run of the chain's process has begun them, or it has ended."""

    def is_waited_for(**changes):
        here(**{"state": "finished", **changes}).write(folder / "status.json")
        return goes_on([inspect(path) for path in with_companions([folder])])

    assert not is_waited_for()
    ChainState("chain", ("a", "b"), {"compare": True}).write(folder / "chain.json")
    assert is_waited_for()
    assert not is_waited_for(pid=GONE)
    assert not is_waited_for(state="failed")
    alone = folder.with_name(f"{folder.name}_individual")
    ChainState("individual", ("a", "b"), {"compare": True}).write(alone / "chain.json")
    here(state="interrupted", written=5.0, mode="individual").write(alone / "status.json")
    assert is_waited_for(), "what is there is of an earlier run"
    here(state="failed", written=time.time(), mode="individual").write(alone / "status.json")
    assert not is_waited_for(written=time.time() - 5)


def test_what_is_no_work_folder_is_named(tmp_path):
    with pytest.raises(WorkDirError, match="does not exist"):
        inspect(tmp_path / "none")
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(WorkDirError, match="is not the work folder"):
        inspect(tmp_path)


def test_it_is_json(folder):
    here().write(folder / "status.json")
    content = json.loads(json.dumps(inspect(folder).to_json(), allow_nan=False))
    assert (content["life"], content["current"], content["share"]) == ("running", "b", 0.7)
    assert content["stages"][1]["iteration"] == 40
