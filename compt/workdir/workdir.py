"""Keep the work folder of a run, its files and who may use it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from compt.config import ChainConfig
from compt.config.resuming import changes, may_change, plain
from compt.errors import ComptError, WorkDirError, some
from compt.files import LOCK, MANIFEST, STATE, STATE_COPY, STATUS, check_recorded, stage_name
from compt.report.build import REPORT
from compt.report.drawings import DRAWN
from compt.report.growth import GrowthRecord
from compt.report.record import StageRecord
from compt.report.state import ChainState, Mode
from compt.shards import weight_files
from compt.workdir.folder import StageFolder, is_begun
from compt.workdir.lock import FolderLock
from compt.workdir.resumption import Resumption
from compt.writing import sweep

RESULTS = frozenset({REPORT, *DRAWN, STATUS})
"""Files that a run and its report write into its folder, beside the stages and chain.json."""


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
            if self._is_first_run and not is_begun(self.path):
                self._remove_traces()
            raise
        finally:
            lock.release()
            if is_new and not is_begun(self.path):
                _remove_if_unused(self.path)

    def _lock(self) -> tuple[FolderLock, list[Path], bool]:
        """Make and lock the folder, and return the lock, what was there, and if it is new."""
        try:
            is_new = not self.path.is_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.path)
            existing = [p for p in self.path.iterdir() if p.name != LOCK]
            lock.acquire()
        except (OSError, ValueError) as error:
            raise WorkDirError(
                f"The work folder cannot be used: {getattr(error, 'strerror', None) or error}.",
                where=str(self.path),
                do="Choose another with --work-dir.",
            ) from error
        self.notes += lock.notes
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
        was_grown = GrowthRecord.read(there.growth).report is not None
        if record.iters != iters or was_grown or weight_files(there.grown):
            return
        changed = changes(ChainState.read(chain / STATE).config, plain(self.config.raw))
        if not all(may_change(change, num_members=len(self.stages)) for change in changed):
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
        old = self._read_state()
        if from_stage is not None and old is None:
            raise WorkDirError(
                "--from-stage repeats a stage of a chain, and the work folder holds none.",
                where=str(self.path),
                do="Name the chain's folder with --work-dir, or leave --from-stage out.",
            )
        if old is not None and (is_begun(self.path) or from_stage is not None):
            self._check_mode(old, resume)
            self._sweep(is_own=True)
            resumption = Resumption(self.path, self.config, self.stages, old, state)
            state = resumption.merge(from_stage)
            self.notes += resumption.notes
            is_first_run = False
        else:
            if old is None:
                self._check_foreign(existing)
            else:
                state = replace(state, history=old.history)
            self._sweep(is_own=old is not None)
            if resume:
                self.notes.append("there is nothing to resume: the chain begins")
            is_first_run = True
        try:
            state.write(path)
            state.write(self.path / STATE_COPY)
        except ComptError as error:
            raise WorkDirError(
                error.what, where=error.where, do="Choose another with --work-dir."
            ) from error
        self._is_first_run = is_first_run

    def _sweep(self, *, is_own: bool) -> None:
        """Remove what an interrupted run left behind.

        Args:
            is_own: whether the folder is a chain's; else files of others may lie in it too.
        """
        if is_own:
            sweep(self.path)
        else:
            for name in (STATE, STATE_COPY, *RESULTS):
                for leftover in self.path.glob(f".{name}.*.tmp"):
                    leftover.unlink()
        for stage in self.stages:
            if stage.done:  # interrupted after its manifest, before it dropped these
                left = stage.drop_checkpoints()
                self.notes += [left] if left else []

    def _read_state(self) -> ChainState | None:
        """Read chain.json, or where it is damaged or gone its copy; None where there is neither.

        Raises:
            WorkDirError: what there is of them is damaged.
        """
        path, copy = self.path / STATE, self.path / STATE_COPY
        fault = f"'{STATE}' is missing"
        try:
            if path.is_file():
                return ChainState.read(path)
            if not copy.is_file():
                return None
            state = ChainState.read(copy)
        except WorkDirError as error:
            fault, state = error.what.rstrip("."), self._read_copy(error)
        self.notes.append(f"{fault}: it is written again from its copy, '{STATE_COPY}'")
        return state

    def _read_copy(self, fault: WorkDirError) -> ChainState:
        """Read the copy of a damaged chain.json."""
        with suppress(WorkDirError):
            return ChainState.read(self.path / STATE_COPY)
        if is_begun(self.path):
            raise fault
        do = "Remove the folder: nothing in it is trained yet."
        raise WorkDirError(fault.what, where=fault.where, do=do) from fault

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

    def _remove_traces(self) -> None:
        """Remove what a run has written that never came to have weights."""
        for stage in self.stages:
            shutil.rmtree(stage.path, ignore_errors=True)
        (self.path / STATUS).unlink(missing_ok=True)
        (self.path / STATE_COPY).unlink(missing_ok=True)
        (self.path / STATE).unlink(missing_ok=True)


def _remove_if_unused(folder: Path) -> None:
    """Remove a folder that holds nothing but its lock."""
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()
