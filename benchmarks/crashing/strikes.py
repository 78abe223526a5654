"""What befalls a running process, and when: at one of its moments, which are counted.

A moment is a step of the optimizer, or an access to the run's folder: a file that is opened, named,
removed or forced to disk. In between, a strike may come later by some milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

EVENTS = frozenset(
    (
        "open",
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.chmod",
        "os.listdir",
        "shutil.rmtree",
        "shutil.copyfile",
        "shutil.move",
    )
)
"""Of Python's audit events, those whose first argument is a path."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
UNTIMED_THREAD = "compt status"
"""It writes every few seconds, so that its moments have no fixed number."""
BALLAST = ".ballast"
MARK = ".struck"
"""File beside a run's folder that says that the moment has come, and after how many steps."""
MOST_LATER = 0.08
"""Seconds that a strike may come after its moment."""
YEAR = 365 * 24 * 3600.0


@dataclass(frozen=True)
class Moment:
    """When to strike: at the ``number``-th step or access of a process, from 1."""

    kind: str
    """'step' or 'access'."""
    number: int
    later: float = 0.0
    """Seconds after it."""


class Moments:
    """Counts the moments of this process, and strikes at one of them.

    Args:
        folder: of the run.
        strike: called once with the path of the access, '' at a step; None only counts.
        at: when.
        note: file to which the counts are written at the process's end.
    """

    def __init__(
        self,
        folder: Path,
        strike: Callable[[str], None] | None = None,
        at: Moment | None = None,
        note: Path | None = None,
    ) -> None:
        self.folder, self.strike, self.at, self.note = str(folder), strike, at, note
        self.counts = {"step": 0, "access": 0}
        self._inside = threading.local()

    def watch(self) -> None:
        """Begin to count."""
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(lambda *_: self._count("step", ""))
        fsync = os.fsync

        def counted(descriptor: Any) -> None:
            self._count("access", "")
            fsync(descriptor)

        os.fsync = counted  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and arguments and isinstance(arguments[0], (str, os.PathLike)):
            path = os.fspath(arguments[0])
            if isinstance(path, str) and f"{path}/".startswith(f"{self.folder}/"):
                self._count("access", path)

    def _count(self, kind: str, path: str) -> None:
        if kind == "step" and not self.counts["access"]:
            return  # of a trial before the run takes its folder
        name = threading.current_thread().name
        if name == UNTIMED_THREAD or getattr(self._inside, "is_counting", False):
            return
        self._inside.is_counting = True
        try:
            self.counts[kind] += 1
            if self.note is not None:
                self.note.write_text(f"{self.counts['step']} {self.counts['access']}")
            if self.at is None or self.strike is None:
                return
            if (kind, self.counts[kind]) == (self.at.kind, self.at.number):
                self._strike(path)
        finally:
            self._inside.is_counting = False

    def _strike(self, path: str) -> None:
        assert self.strike is not None and self.at is not None
        strike, self.strike = self.strike, None
        if self.at.later:
            timer = threading.Timer(self.at.later, strike, [path])
            timer.daemon = True
            timer.start()
        else:
            strike(path)


@dataclass(frozen=True)
class Strike:
    """What befalls a process, as the trial has drawn it."""

    kind: str
    folder: Path
    seed: int
    moment: Moment
    options: Mapping[str, Any]

    def arm(self) -> None:
        """Wait for the moment, in the process that is struck."""
        strike, moment = STRIKES[self.kind](self), self.moment
        if self.kind in AT_ONCE:  # an error rises where the process is, not in a timer's thread
            moment = replace(moment, later=0.0)

        def blow(path: str) -> None:
            (self.folder.parent / MARK).write_text(str(moments.counts["step"]))
            strike(path)

        moments = Moments(self.folder, blow, moment)
        moments.watch()


def _killed(strike: Strike) -> Callable[[str], None]:
    def blow(path: str) -> None:
        if strike.options.get("torn_write") and path.endswith(".tmp") and os.path.isfile(path):
            os.truncate(path, random.Random(strike.seed).randrange(os.path.getsize(path) + 1))
        os.kill(os.getpid(), signal.SIGKILL)

    return blow


def _signalled(number: signal.Signals) -> Callable[[Strike], Callable[[str], None]]:
    def armed(strike: Strike) -> Callable[[str], None]:
        def blow(path: str) -> None:
            if strike.options.get("to_all"):
                os.killpg(0, number)
            else:
                os.kill(os.getpid(), number)
            if again := strike.options.get("again"):
                timer = threading.Timer(again, os.kill, (os.getpid(), number))
                timer.daemon = True
                timer.start()

        return blow

    return armed


def _worker_killed(strike: Strike) -> Callable[[str], None]:
    def blow(path: str) -> None:
        workers = [p.pid for p in multiprocessing.active_children() if p.pid is not None]
        if workers:
            os.kill(random.Random(strike.seed).choice(workers), signal.SIGKILL)

    return blow


def _out_of_memory(strike: Strike) -> Callable[[str], None]:
    def blow(path: str) -> None:
        import resource

        import torch

        if strike.options["way"] == "limit":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            size = pages * resource.getpagesize() + strike.options["room"]
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        elif strike.options["way"] == "torch":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        else:
            raise MemoryError

    return blow


def _disk_filled(strike: Strike) -> Callable[[str], None]:
    """Fill the small disk that the run's folder is on, but for some bytes."""

    def blow(path: str) -> None:
        ballast = strike.folder.parent / BALLAST
        size = os.statvfs(strike.folder.parent)
        free = size.f_bavail * size.f_frsize - strike.options["room"]
        with suppress(OSError), ballast.open("wb") as file:  # the run may have been faster
            os.posix_fallocate(file.fileno(), 0, max(1, free))

    return blow


def _writes_refused(strike: Strike) -> Callable[[str], None]:
    """Refuse every opening for writing from now on, where no disk can be filled."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
            return
        path, flags = os.fspath(arguments[0]), arguments[2]
        if isinstance(path, str) and path.startswith(str(strike.folder)) and flags & WRITING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    return lambda path: sys.addaudithook(refuse)


def _made_read_only(strike: Strike) -> Callable[[str], None]:
    return lambda path: set_writable(strike.folder, writable=False)


def _clock_moved(strike: Strike) -> Callable[[str], None]:
    def blow(path: str) -> None:
        move_clock(strike.options["seconds"])

    return blow


STRIKES: Mapping[str, Callable[[Strike], Callable[[str], None]]] = {
    "SIGKILL": _killed,
    "rank killed": _killed,
    "SIGTERM": _signalled(signal.SIGTERM),
    "Ctrl-C": _signalled(signal.SIGINT),
    "data worker killed": _worker_killed,
    "out of memory": _out_of_memory,
    "disk full": _disk_filled,
    "writes refused": _writes_refused,
    "read-only folder": _made_read_only,
    "clock jump": _clock_moved,
}
AT_ONCE = frozenset(("out of memory",))


def move_clock(seconds: float) -> None:
    """Move this process's clock, but not the one that measures how long something takes."""
    now, local = time.time, time.localtime
    time.time = lambda: now() + seconds
    time.localtime = lambda at=None: local(time.time() if at is None else at)


def set_writable(folder: Path, *, writable: bool) -> None:
    """Give or take the permission to write to a folder and all folders in it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


def drop_capabilities() -> None:
    """Let permissions hold for this process too, if it is root's."""
    if os.geteuid() or not sys.platform.startswith("linux"):
        return
    version_3 = 0x20080522
    header = (ctypes.c_uint32 * 2)(version_3, 0)
    ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)())
