"""Find out from files alone what a run is doing, and whether it is still alive."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from compt.files import LOCK, MANIFEST, STATE, STATUS, individual_dir, stage_name
from compt.report.record import StageRecord
from compt.report.results import read_state
from compt.report.state import ChainState
from compt.report.watch import machine
from compt.report.watch.follower import finished_stage
from compt.report.watch.status import RunStatus, StageStatus

SILENT_AFTER = 60.0
"""Seconds without a sign of life after which a run on another machine may have ended."""

Life = Literal["running", "finished", "interrupted", "failed", "killed", "silent", "stopped"]


@dataclass(frozen=True)
class Sighting:
    """What a work folder tells of its run."""

    folder: Path
    status: RunStatus
    life: Life
    """'killed': its process is gone without a word. 'silent': its process may be gone, on a machine
    that cannot be asked. 'stopped': an older compt's, which has not finished and is not running.
    """
    is_recorded: bool = True
    """Whether the run has written its status; else it is told from its finished stages."""

    @property
    def is_alive(self) -> bool:
        """Whether the run may still get on."""
        return self.life in ("running", "silent")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        content = asdict(self.status)
        return {
            "folder": str(self.folder),
            "life": self.life,
            "share": self.status.share,
            "current": None if self.status.current is None else self.status.current.name,
            **content,
        }


def with_companions(folders: Sequence[Path]) -> list[Path]:
    """Return work folders, each with that of its members alone where the run trains them too.

    Raises:
        WorkDirError: one is no work folder of compt, or damaged.
    """
    result: list[Path] = []
    for folder in folders:
        result.append(folder)
        alone = individual_dir(folder)
        if read_state(folder).config.get("compare") and (alone / STATE).is_file():
            result.append(alone)
    return list(dict.fromkeys(result))


def goes_on(sightings: Sequence[Sighting]) -> bool:
    """Return whether one of the runs may get on, or will begin.

    A chain with ``compare=True`` is followed by its members alone, in the same process, which
    takes a moment to begin.
    """
    if any(sighting.is_alive for sighting in sightings):
        return True
    written = {sighting.folder: sighting.status.written for sighting in sightings}
    return any(
        sighting.life == "finished"
        and read_state(sighting.folder).config.get("compare")
        and _is_there(sighting.status)
        and written.get(individual_dir(sighting.folder), 0.0) < sighting.status.written
        for sighting in sightings
        if sighting.status.mode == "chain"
    )


def inspect(folder: Path) -> Sighting:
    """Read what a run is doing from its work folder, which is not changed.

    Raises:
        WorkDirError: it is no work folder of compt, or a file in it is damaged.
    """
    state = read_state(folder)
    life: Life
    if (folder / STATUS).is_file():
        status = RunStatus.read(folder / STATUS)
        life = _life(status, folder / LOCK, time.time())
        if life == "killed" and _is_complete(folder, state):
            # It could no longer say so, as on a disk that is full or read-only.
            stages = _from_records(folder, state).stages
            return Sighting(folder, replace(status, state="finished", stages=stages), "finished")
        return Sighting(folder, status, life)
    status = _from_records(folder, state)
    life = "finished"
    if any(stage.state != "done" for stage in status.stages):
        life = "running" if machine.is_locked(folder / LOCK) else "stopped"
    return Sighting(folder, status, life, is_recorded=False)


def _is_complete(folder: Path, state: ChainState) -> bool:
    names = map(stage_name, range(len(state.members)), state.members)
    return all((folder / name / MANIFEST).is_file() for name in names)


def _life(status: RunStatus, lock: Path, now: float) -> Life:
    """Judge whether a run goes on that has last said so."""
    if status.state != "running":
        return status.state
    boot, here = status.boot, machine.boot_id()
    if boot and boot == here:
        # Its number tells of a process in this container. The lock tells of one in another, too,
        # and is only asked for then, as for a moment no run could take it.
        return "running" if _is_there(status) or machine.is_locked(lock) else "killed"
    if status.host == machine.host_name() and boot and here:  # started again since
        return "killed"
    # Across machines a lock that is held is held; one that is not may be their own matter.
    is_fresh = now - status.written < SILENT_AFTER
    return "running" if is_fresh or machine.is_locked(lock) else "silent"


def _is_there(status: RunStatus) -> bool:
    """Return whether a run's process can be seen from here."""
    started = machine.process_started(status.pid)
    return status.boot == machine.boot_id() and bool(started) and started == status.process_started


def _from_records(folder: Path, state: ChainState) -> RunStatus:
    """Return the status of a run that an older compt has trained, from its records."""
    planned: Mapping[str, Any] = {stage.name: stage for stage in state.stages}
    stages = []
    written = 0.0
    for index, name in enumerate(state.members):
        path = folder / stage_name(index, name)
        plan = planned.get(name)
        stage = StageStatus(
            name=name,
            iters=plan.iters if plan else 0,
            batch_size=plan.batch_size if plan else 0,
        )
        if (path / MANIFEST).is_file():
            stage = finished_stage(stage, StageRecord.read(path / MANIFEST))
            written = max(written, (path / MANIFEST).stat().st_mtime)
        stages.append(stage)
    written = written or (folder / STATE).stat().st_mtime
    return RunStatus(mode=state.mode, stages=tuple(stages), written=written, progressed=written)
