"""Keeps few of many files open in each process, and reads them at given places."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_OPEN = 64
"""Files that a process keeps open at a time."""


class OpenFiles:
    """The archives that a process reads, of which the least used are closed again.

    Each process opens its own.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._process = os.getpid()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes of a file."""
        if self._process != os.getpid():
            self._close()
            self._process = os.getpid()
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
        self._open.move_to_end(path)
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return os.pread(self._open[path], size, offset)

    def _close(self, close: Callable[[int], None] = os.close) -> None:
        while self._open:
            close(self._open.popitem()[1])  # bound above: modules go before this at the end

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def __del__(self) -> None:
        self._close()
