"""Who may train in a work folder, on file systems with locks and without."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from compt.errors import WorkDirError
from compt.files import LOCK, STATUS
from compt.report.watch import machine
from compt.report.watch.status import RunStatus
from compt.workdir.lock import WATCHED_FOR, FolderLock

FAR = dict(host="far", boot="another", pid=7)


def says(folder: Path, **changes: Any) -> None:
    """Write what the last run in a folder has said of itself."""
    content = dict(mode="chain", stages=(), state="running", written=1.0, **FAR) | changes
    RunStatus(**content).write(folder / STATUS)


def refused(folder: Path, sleep: Any) -> WorkDirError:
    with pytest.raises(WorkDirError, match="Another process is training") as caught:
        FolderLock(folder).acquire(sleep)
    return caught.value


def never(seconds: float) -> None:
    raise AssertionError("there is nothing to wait for")


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    says(tmp_path)
    with FileLock(tmp_path / LOCK):
        error = refused(tmp_path, never)
    assert "process 7 on far" in error.what
    says(tmp_path, state="failed")
    lock = FolderLock(tmp_path)
    lock.acquire(never)
    lock.release()
    assert lock.notes == []


def test_a_run_on_another_machine_is_known_by_its_signs_of_life(tmp_path):
    """Where a lock does not reach: many network file systems keep it to the machine that asks."""
    says(tmp_path)
    error = refused(tmp_path, lambda _: says(tmp_path, written=2.0))
    assert "process 7 on far" in error.what
    says(tmp_path, state="interrupted")
    FolderLock(tmp_path).acquire(never)  # the refused one has given it back


@pytest.mark.parametrize("later", [{}, dict(state="finished", written=2.0)])
def test_one_that_gives_no_sign_has_ended(tmp_path, later):
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        says(tmp_path, **later)

    says(tmp_path)
    FolderLock(tmp_path).acquire(sleep)
    assert sum(waited) == (1 if later else WATCHED_FOR)


@pytest.mark.parametrize(
    "killed",
    [
        dict(host="elsewhere in a container", boot="here"),
        dict(host=machine.host_name(), boot="before it was started again"),
    ],
)
def test_nobody_waits_for_a_run_that_was_killed_on_this_machine(tmp_path, monkeypatch, killed):
    monkeypatch.setattr(machine, "boot_id", lambda: "here")
    says(tmp_path, **killed)
    FolderLock(tmp_path).acquire(never)


def test_without_locks_the_signs_of_life_are_all_there_is(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", fail)
    monkeypatch.setattr(machine, "boot_id", lambda: "here")
    lock = FolderLock(tmp_path)
    lock.acquire(never)
    assert "has no locks" in lock.notes[0]
    says(tmp_path, boot="here")
    refused(tmp_path, lambda _: says(tmp_path, boot="here", written=2.0))


def test_a_folder_that_cannot_be_written_is_not_one_without_locks(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", fail)
    with pytest.raises(OSError, match="Read-only"):
        FolderLock(tmp_path).acquire(never)
