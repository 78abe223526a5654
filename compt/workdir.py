"""The work folder of a chain: who may use it, which config it belongs to, which stages are done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compt.config import ChainConfig
from compt.errors import ComptError, WorkDirError
from compt.files import (
    CHECKPOINTS,
    CONFIG,
    EXPORT,
    FORMAT,
    GROWN,
    GROWN_OPTIMIZER,
    GROWTH,
    LOCK,
    MANIFEST,
    NEW,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    read_json,
    share,
    stage_name,
    sweep,
    write_json,
)

FREE_KEYS = (
    "compare",
    "published",
    "work_dir",
    "launcher",
    "visualizer",
    "log_processor",
    "env_cfg",
    "default_hooks",
    "checkpoint",
    "val_dataloader",
)
"""Keys that may change between a run and its resumption: they do not touch what is trained."""


class StageFolder:
    """The files of one stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, self.weights, self.grown = path / MANIFEST, path / WEIGHTS, path / GROWN
        self.new, self.optimizer, self.grown_optimizer = (
            path / NEW,
            path / OPTIMIZER,
            path / GROWN_OPTIMIZER,
        )
        self.growth, self.config = path / GROWTH, path / CONFIG
        self.export, self.checkpoints = path / EXPORT, path / CHECKPOINTS

    @property
    def done(self) -> bool:
        """Whether the stage is finished: its manifest is written last."""
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
    """One chain's folder, locked while it is in use.

    Args:
        path: of the folder.
        config: of the chain.
        mode: 'chain' or 'individual'.
    """

    def __init__(self, path: Path, config: ChainConfig, mode: str) -> None:
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
        try:
            self._claim(existing, resume)
            yield
        finally:
            lock.release()

    def take_over(self, other: Path, iters: int) -> None:
        """Copy the first stage from another folder of the same config, where it was trained alike:
        from scratch.
        """
        here = self.stages[0]
        there = StageFolder(other / here.path.name)
        if here.done or not there.done or not (other / STATE).is_file():
            return
        manifest, state = read_json(there.manifest), read_json(other / STATE)
        fresh = (
            manifest["iters"] == iters
            and not read_json(there.growth)["growth"]
            and not there.grown.is_file()
        )
        if not fresh or differences(state["config"], plain(self.config.raw)):
            return
        shutil.rmtree(here.path, ignore_errors=True)
        shutil.copytree(
            there.path,
            here.path,
            ignore=lambda folder, names: [MANIFEST] if MANIFEST in names else [],
        )
        write_json(here.manifest, {**manifest, "mode": self.mode})

    def _claim(self, existing: list[Path], resume: bool) -> None:
        state = self.path / STATE
        if state.is_file():
            self._compare(read_json(state), resume)
            sweep(self.path)
            return
        if any(not p.name.startswith(".") for p in existing):
            raise WorkDirError(
                "The work folder is not empty and holds no chain of compt.",
                where=str(self.path),
                do="Choose a new or empty folder with --work-dir.",
            )
        try:
            write_json(state, self._state())
        except ComptError as error:
            raise WorkDirError(
                error.what, where=error.where, do="Choose another with --work-dir."
            ) from error

    def _state(self) -> dict[str, Any]:
        members = [s.member.name for s in self.config.stages]
        return {
            "format": FORMAT,
            "mode": self.mode,
            "members": members,
            "config": plain(self.config.raw),
        }

    def _compare(self, state: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise WorkDirError(
                "The work folder already holds a chain.",
                where=str(self.path),
                do="Add --resume to go on with it, or choose another folder with --work-dir.",
            )
        if state["mode"] != self.mode:
            raise WorkDirError(
                f"The work folder holds a run in mode '{state['mode']}', not '{self.mode}'.",
                where=str(self.path),
            )
        changes = differences(state["config"], plain(self.config.raw))
        if changes:
            lines = "\n".join(f"  - {change}" for change in changes)
            raise WorkDirError(
                f"The config is not the one this chain was started with:\n{lines}",
                where=str(self.path),
                do="Undo the change to resume, or start anew in another --work-dir.",
            )


def plain(value: Any) -> Any:
    """A config as JSON types, for comparison."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name every key that differs between two configs, as 'key: old -> new'."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    keys = sorted({*old, *new}, key=lambda k: (k.partition(".")[0], k))
    missing = object()
    return [
        f"{key}: {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in keys
        if old.get(key, missing) != new.get(key, missing) and key.partition(".")[0] not in FREE_KEYS
    ]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    items = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        yield key, value
        return
    empty = True
    for name, inner in items:
        empty = False
        yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    if empty:
        yield key, value
