"""Keep the work folder of a run, its files and who may use it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from compt.config import ChainConfig
from compt.config.resuming import changes, may_change, plain
from compt.errors import ComptError, WorkDirError, did_you_mean, some
from compt.files import (
    CHECKPOINTS,
    CONFIG,
    EXPORT,
    GROWN,
    GROWN_OPTIMIZER,
    GROWTH,
    LOCK,
    MANIFEST,
    NEW,
    OPTIMIZER,
    REPLACED,
    STATE,
    WEIGHTS,
    check_recorded,
    share,
    stage_name,
    sweep,
)
from compt.report.build import PLOTS, REPORT
from compt.report.growth import GrowthRecord
from compt.report.record import StageRecord
from compt.report.state import ChainState, Mode

RESULTS = frozenset({REPORT, *PLOTS})
"""Files that the report of a run writes into its folder."""


def individual_dir(chain: Path) -> Path:
    """Return the folder of members trained alone that belongs to a chain's folder."""
    return Path(f"{chain}_individual")


class StageFolder:
    """The files of one stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / CONFIG
        self.growth = path / GROWTH
        self.grown = path / GROWN
        self.new = path / NEW
        self.grown_optimizer = path / GROWN_OPTIMIZER
        self.checkpoints = path / CHECKPOINTS
        self.weights = path / WEIGHTS
        self.optimizer = path / OPTIMIZER
        self.export = path / EXPORT
        self.manifest = path / MANIFEST

    @property
    def done(self) -> bool:
        """Whether the stage is finished, as its manifest is written last."""
        return self.manifest.is_file()

    @contextmanager
    def exporting(self) -> Iterator[Path]:
        """Yield an empty folder that becomes ``export`` once it is complete."""
        beside = self.path / f".{EXPORT}.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        share(beside)
        shutil.rmtree(self.export, ignore_errors=True)
        beside.rename(self.export)


class WorkDir:
    """One run's folder, locked while it is in use.

    Args:
        path: of the folder.
        config: of the chain.
        mode: 'chain' or 'individual'.
    """

    def __init__(self, path: Path, config: ChainConfig, mode: Mode) -> None:
        self.path, self.config, self.mode = path, config, mode
        self.stages = tuple(
            StageFolder(path / stage_name(i, s.member.name)) for i, s in enumerate(config.stages)
        )
        self.notes: list[str] = []
        """What a resumed run has accepted or put aside, for the user."""
        self._is_first_run = False

    @contextmanager
    def open(
        self, state: ChainState, *, resume: bool, from_stage: str | None = None
    ) -> Iterator[None]:
        """Take the folder, new or to resume, and hold it.

        A run that fails before it has weights leaves a new folder as it found it.

        Args:
            state: what this run is to train, for chain.json.
            resume: whether to go on with what is there.
            from_stage: name of the first stage to train anew, with this run's config.

        Raises:
            WorkDirError: it cannot be written, is in use, holds something else, or another run.
        """
        lock, existing, is_new = self._lock()
        try:
            self._claim(state, existing, resume, from_stage)
            yield
        except BaseException:
            if self._is_first_run and not _is_begun(self.path):
                self._remove_traces()
            raise
        finally:
            lock.release()
            if is_new and not _is_begun(self.path):
                _remove_if_unused(self.path)

    def _lock(self) -> tuple[FileLock, list[Path], bool]:
        """Make and lock the folder, and return the lock, what was there, and if it is new."""
        try:
            is_new = not self.path.is_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, timeout=0)
            existing = [p for p in self.path.iterdir() if p.name != LOCK]
            lock.acquire()
        except Timeout as error:
            raise WorkDirError(
                "Another process is training in this folder.",
                where=str(self.path),
                do="Wait for it, or stop it.",
            ) from error
        except (OSError, ValueError) as error:
            raise WorkDirError(
                f"The work folder cannot be used: {getattr(error, 'strerror', None) or error}.",
                where=str(self.path),
                do="Choose another with --work-dir.",
            ) from error
        return lock, existing, is_new

    def take_over(self, chain: Path, iters: int) -> None:
        """Copy the first stage from a chain's folder, if it was trained as it is to be here.

        That is from scratch, by the same config, for as many iterations.

        Raises:
            WorkDirError: a file of the chain's folder is damaged.
        """
        here = self.stages[0]
        there = StageFolder(chain / here.path.name)
        if here.done or not there.done or not (chain / STATE).is_file():
            return
        record = StageRecord.read(there.manifest)
        was_grown = GrowthRecord.read(there.growth).report is not None or there.grown.is_file()
        if record.iters != iters or was_grown:
            return
        if self._refused(ChainState.read(chain / STATE).config):
            return
        check_recorded(there.path)
        shutil.rmtree(here.path, ignore_errors=True)
        # The manifest is written last: a copy that was interrupted is no finished stage.
        shutil.copytree(there.path, here.path, ignore=shutil.ignore_patterns(MANIFEST))
        replace(record, mode=self.mode).write(here.manifest)

    def _claim(
        self, state: ChainState, existing: list[Path], resume: bool, from_stage: str | None
    ) -> None:
        path = self.path / STATE
        if from_stage is not None and not path.is_file():
            raise WorkDirError(
                "--from-stage repeats a stage of a chain, and the work folder holds none.",
                where=str(self.path),
                do="Name the chain's folder with --work-dir, or leave --from-stage out.",
            )
        old = ChainState.read(path) if path.is_file() else None
        if old is not None and (_is_begun(self.path) or from_stage is not None):
            self._check_mode(old, resume)
            sweep(self.path)
            state = self._merged(old, state, from_stage)
            is_first_run = False
        else:
            if old is None:
                self._check_foreign(existing)
            else:
                state = replace(state, history=old.history)
            if resume:
                self.notes.append("there is nothing to resume: the chain begins")
            is_first_run = True
        try:
            state.write(path)
        except ComptError as error:
            raise WorkDirError(
                error.what, where=error.where, do="Choose another with --work-dir."
            ) from error
        self._is_first_run = is_first_run

    def _check_foreign(self, existing: Iterable[Path]) -> None:
        """Raise WorkDirError for what the run would overwrite, or what belongs to another one.

        What merely lies there, such as a scheduler's log, stays.
        """
        own = {stage.path.name for stage in self.stages} | RESULTS
        taken = [
            path.name
            for path in existing
            if path.name in own or StageFolder(path).done or (path / STATE).is_file()
        ]
        if taken:
            raise WorkDirError(
                f"The work folder holds no chain of compt, but {some(sorted(taken))}, which the "
                "run would overwrite or which belongs to another one.",
                where=str(self.path),
                do="Move it away, or choose another folder with --work-dir.",
            )

    def _check_mode(self, old: ChainState, resume: bool) -> None:
        """Raise WorkDirError unless this run may go on with the one in the folder."""
        if not resume:
            raise WorkDirError(
                "The work folder already holds a chain.",
                where=str(self.path),
                do="Add --resume to go on with it, or choose another folder with --work-dir.",
            )
        if old.mode != self.mode:
            raise WorkDirError(
                f"The work folder holds a run in mode '{old.mode}', not '{self.mode}'.",
                where=str(self.path),
            )

    def _merged(self, old: ChainState, new: ChainState, from_stage: str | None) -> ChainState:
        """Return the state of a run that goes on, and put aside what it trains anew.

        Raises:
            WorkDirError: the old run and this one do not fit together.
        """
        first_anew = None if from_stage is None else self._first_anew(from_stage)
        changed = changes(old.config, new.config)
        refused = self._refused(old.config, num_members=len(old.members), first_anew=first_anew)
        going_on = range(len(self.stages)) if first_anew is None else range(first_anew)
        to_train = [index for index in going_on if not self.stages[index].done]
        misfits = [] if refused or first_anew is not None else [*old.misfits(new, to_train)]
        if refused or misfits:
            self._refuse(refused, misfits)
        self._check_optimizer_states()
        appended = new.members[len(old.members) :]
        noted = [
            *(f"appended: '{name}'" for name in appended),
            *(str(c) for c in changed if c.member is None or c.member < len(old.members)),
            *self._put_aside(old, first_anew),
        ]
        if old.world_size not in (None, new.world_size):
            noted.append(f"processes: {old.world_size} -> {new.world_size}")
        self.notes += noted
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "changes": noted}
        return replace(new, history=(*old.history, *([entry] if noted else [])))

    def _refused(
        self,
        old: Mapping[str, Any],
        *,
        num_members: int | None = None,
        first_anew: int | None = None,
    ) -> list[str]:
        """Return the keys that differ from an old config and may not."""
        count = len(self.stages) if num_members is None else num_members
        return [
            str(change)
            for change in changes(old, plain(self.config.raw))
            if not may_change(change, num_members=count, first_anew=first_anew)
        ]

    def _refuse(self, changed: list[str], misfits: list[str]) -> NoReturn:
        lines = "\n".join(f"  - {change}" for change in [*changed, *misfits])
        if changed:
            what = "The config is not the one this run was started with"
            advice = (
                "Put it back, add --from-stage NAME to train that stage and those after it anew, "
                "or choose another --work-dir."
            )
        else:
            what = "What is to be trained is not what this run was started with"
            advice = (
                "Put it back (with other numbers of processes, train_dataloader.batch_size such "
                "that all of them together have as many samples), or choose another --work-dir."
            )
        raise WorkDirError(f"{what}:\n{lines}", where=str(self.path), do=advice)

    def _check_optimizer_states(self) -> None:
        """Raise WorkDirError where a stage inherits an optimizer's state that was not kept."""
        for source, target, stage in zip(
            self.stages, self.stages[1:], self.config.stages[1:], strict=False
        ):
            inherits = stage.grown.optimizer_state and self.mode == "chain" and not target.done
            if inherits and source.done and not source.optimizer.is_file():
                name = source.path.name.partition("_")[2]
                raise WorkDirError(
                    f"'{stage.name}' is to inherit the state of the optimizer of '{name}', which "
                    "was not kept.",
                    where=str(source.optimizer),
                    do=f"Leave out grown.optimizer_state of '{stage.name}', or train '{name}' "
                    f"again with --from-stage {name}. checkpoint=dict(optimizer=True) keeps the "
                    "last member's.",
                )

    def _first_anew(self, name: str) -> int:
        """Return the index of the stage that is to be trained anew.

        Raises:
            WorkDirError: there is no such stage, or one before it is not finished.
        """
        names = [stage.member.name for stage in self.config.stages]
        if name not in names:
            near = did_you_mean(name, names)
            raise WorkDirError(
                f"--from-stage: there is no stage '{name}'.{near}",
                where=str(self.path),
                do=f"One of {', '.join(names)}.",
            )
        index = names.index(name)
        unfinished = [names[i] for i in range(index) if not self.stages[i].done]
        if self.mode == "chain" and unfinished:
            raise WorkDirError(
                f"--from-stage {name}: the stage '{unfinished[0]}' before it is not finished.",
                where=str(self.path),
                do=f"--from-stage {unfinished[0]}, or --resume alone.",
            )
        return index

    def _put_aside(self, old: ChainState, first_anew: int | None) -> list[str]:
        """Move the folders of stages that are trained anew, and return what was moved where."""
        if first_anew is None:
            return []
        moved = []
        for index, name in enumerate(old.members):
            folder = self.path / stage_name(index, name)
            if index >= first_anew and folder.is_dir():
                place = self._free_place(folder.name)
                place.parent.mkdir(exist_ok=True)
                folder.rename(place)
                moved.append(f"{folder.name} is kept as {place.relative_to(self.path)}")
        return moved

    def _free_place(self, name: str) -> Path:
        count = 1
        while (place := self.path / REPLACED / f"{name}.{count}").exists():
            count += 1
        return place

    def _remove_traces(self) -> None:
        """Remove what a run has written that never came to have weights."""
        for stage in self.stages:
            shutil.rmtree(stage.path, ignore_errors=True)
        (self.path / STATE).unlink(missing_ok=True)


def _is_begun(folder: Path) -> bool:
    """Return whether a run in a folder has got so far that one of its stages has weights."""
    return any(any(folder.glob(f"*/{name}")) for name in (GROWTH, MANIFEST))


def _remove_if_unused(folder: Path) -> None:
    """Remove a folder that holds nothing but its lock."""
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()
