"""Let one run use a work folder at a time.

A lock of the file system tells of runs on this machine, and on others where it reaches them. The
signs of life in status.json tell of others where it does not.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from compt.errors import ComptError, WorkDirError
from compt.files import LOCK, STATUS
from compt.report.watch import machine
from compt.report.watch.follower import WRITTEN_EVERY
from compt.report.watch.status import RunStatus

WATCHED_FOR = 3 * WRITTEN_EVERY
"""Seconds in which a run on another machine gives a sign of life."""
WITHOUT_LOCKS = frozenset((errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK))
"""What file systems say that have no locks."""
NO_LOCKS = (
    "the file system of the work folder has no locks: a second run on it is refused once this one "
    "has written status.json, and not where both begin at once"
)


class FolderLock:
    """The right of this process to train in a work folder.

    Args:
        folder: which is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._lock = FileLock(folder / LOCK, timeout=0)

    def acquire(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Take it.

        Args:
            sleep: called with seconds while a run on another machine is watched.

        Raises:
            WorkDirError: another process trains in the folder.
            OSError: the folder cannot be written.
        """
        status = self._status()
        try:
            self._lock.acquire()
        except Timeout as error:
            raise self._in_use(status) from error
        except (OSError, NotImplementedError) as error:
            if not isinstance(error, NotImplementedError) and error.errno not in WITHOUT_LOCKS:
                raise
            self.notes.append(NO_LOCKS)
        if status is not None and self._is_alive(status, sleep):
            self.release()
            raise self._in_use(status)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def _status(self) -> RunStatus | None:
        """Return what the run said that was last in the folder."""
        try:
            return RunStatus.read(self.folder / STATUS)
        except ComptError:  # none, or a damaged one, which the run writes anew
            return None

    def _is_alive(self, status: RunStatus, sleep: Callable[[float], object]) -> bool:
        """Tell whether a run that has last said that it is running still gives signs of life."""
        if status.state != "running":
            return False
        here = machine.boot_id()
        if here and status.boot == here and self._lock.is_locked:
            return False  # locks hold on one machine, whichever container asks
        if status.host == machine.host_name() and status.boot not in ("", here):
            return False  # started again since
        for _ in range(round(WATCHED_FOR)):
            sleep(1.0)
            now = self._status()
            if now is not None and now.written != status.written:
                return now.state == "running"
        return False

    def _in_use(self, status: RunStatus | None) -> WorkDirError:
        known = status is not None and status.state == "running"
        who = f", process {status.pid} on {status.host}" if known and status is not None else ""
        return WorkDirError(
            f"Another process is training in this folder{who}.",
            where=str(self.folder),
            do="Wait for it, or stop it.",
        )
