"""Keep the work folder of a run, its files and who may use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compt.config import ChainConfig, resumable_keys
from compt.errors import ComptError, WorkDirError
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
    STATE,
    WEIGHTS,
    share,
    stage_name,
    sweep,
)
from compt.report.growth import GrowthRecord
from compt.report.record import StageRecord
from compt.report.state import ChainState, Mode

_MISSING = object()


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

    @contextmanager
    def open(self, *, resume: bool) -> Iterator[None]:
        """Take the folder, new or to resume, and hold it.

        Raises:
            WorkDirError: it cannot be written, is in use, holds something else, or another config's
                chain.
        """
        lock, existing = self._lock()
        try:
            self._claim(existing, resume)
            yield
        finally:
            lock.release()

    def _lock(self) -> tuple[FileLock, list[Path]]:
        """Make and lock the folder, and return the lock and what was there before."""
        try:
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
        except OSError as error:
            raise WorkDirError(
                f"The work folder cannot be used: {error.strerror or error}.",
                where=str(self.path),
                do="Choose another with --work-dir.",
            ) from error
        return lock, existing

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
        if differences(ChainState.read(chain / STATE).config, plain(self.config.raw)):
            return
        shutil.rmtree(here.path, ignore_errors=True)
        # The manifest is written last: a copy that was interrupted is no finished stage.
        shutil.copytree(there.path, here.path, ignore=shutil.ignore_patterns(MANIFEST))
        replace(record, mode=self.mode).write(here.manifest)

    def _claim(self, existing: list[Path], resume: bool) -> None:
        state = self.path / STATE
        if state.is_file():
            self._compare(ChainState.read(state), resume)
            sweep(self.path)
            return
        if any(not p.name.startswith(".") for p in existing):
            raise WorkDirError(
                "The work folder is not empty and holds no chain of compt.",
                where=str(self.path),
                do="Choose a new or empty folder with --work-dir.",
            )
        members = tuple(stage.member.name for stage in self.config.stages)
        try:
            ChainState(self.mode, members, plain(self.config.raw)).write(state)
        except ComptError as error:
            raise WorkDirError(
                error.what, where=error.where, do="Choose another with --work-dir."
            ) from error

    def _compare(self, state: ChainState, resume: bool) -> None:
        """Raise WorkDirError unless this run may go on with the one in the folder."""
        if not resume:
            raise WorkDirError(
                "The work folder already holds a chain.",
                where=str(self.path),
                do="Add --resume to go on with it, or choose another folder with --work-dir.",
            )
        if state.mode != self.mode:
            raise WorkDirError(
                f"The work folder holds a run in mode '{state.mode}', not '{self.mode}'.",
                where=str(self.path),
            )
        changes = differences(state.config, plain(self.config.raw))
        if changes:
            lines = "\n".join(f"  - {change}" for change in changes)
            raise WorkDirError(
                f"The config is not the one this chain was started with:\n{lines}",
                where=str(self.path),
                do="Undo the change to resume, or start anew in another --work-dir.",
            )


def plain(value: Any) -> Any:
    """Return a config as JSON types, for comparison."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name every key that differs between two configs, with its old and its new value."""
    old_values, new_values = dict(_leaves(old)), dict(_leaves(new))
    free = resumable_keys()
    keys = [
        key
        for key in {*old_values, *new_values}
        if old_values.get(key, _MISSING) != new_values.get(key, _MISSING)
        and key.partition(".")[0] not in free
    ]
    return [
        f"{key}: {old_values.get(key, 'not set')} -> {new_values.get(key, 'not set')}"
        for key in sorted(keys, key=lambda key: (key.partition(".")[0], key))
    ]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is no mapping or list, or is an empty one, by its dotted key."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    leaf = True
    for name, inner in items:
        leaf = False
        yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    if leaf:
        yield key, value
