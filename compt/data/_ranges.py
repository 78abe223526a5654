"""Reads files at given places, local or on a server, of which few are kept open."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from compt.data._storage import is_remote, locate, tried
from compt.errors import DataError

MAX_OPEN = 64
"""Files that a process keeps open at a time."""
MAX_GAP = 1 << 16
"""Bytes between two ranges of a file on a server that are read with them, for one request less."""
MAX_BLOCK = 1 << 24
"""Bytes of a request that is made of several ranges."""


class ByteRange(NamedTuple):
    """``size`` bytes of a file from ``offset`` on."""

    place: Path | str
    """Its path, or the URL of a file on a server."""
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind its last."""
        return self.offset + self.size


class RangeReader:
    """What reads ranges of files, for one process at a time.

    A worker process that gets a copy opens files and connections of its own. Local files are kept
    open, of which the least used are closed again. Ranges of files on servers are read one by one,
    or many at a time after :meth:`fetch_ahead`.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._located: dict[str, tuple[Any, str]] = {}
        self._ahead: dict[ByteRange, bytes] = {}

    def fetch_ahead(self, ranges: Iterable[ByteRange]) -> None:
        """Read ranges of files on servers at once, and keep them until the next call.

        Neighbours of one file are one request.

        Raises:
            DataError: a range cannot be read.
        """
        self._own()
        self._ahead = {}
        remote = sorted({wanted for wanted in ranges if is_remote(wanted.place) and wanted.size})
        groups: dict[Any, list[list[ByteRange]]] = {}
        for joined in _joined(remote):
            system, _ = self._locate(joined[0].place)
            groups.setdefault(system, []).append(joined)
        for system, requests in groups.items():
            for joined, data in zip(requests, self._request(system, requests), strict=True):
                start = joined[0].offset
                for wanted in joined:
                    first = wanted.offset - start
                    self._ahead[wanted] = data[first : first + wanted.size]

    def read(self, place: Path | str, offset: int, size: int) -> bytes:
        """Read ``size`` bytes of a file, or of a local one that is shorter those there are.

        Raises:
            OSError: a local file cannot be read.
            DataError: a file on a server cannot be read, or is shorter.
        """
        self._own()
        if isinstance(place, Path) or not is_remote(place):
            return self._read_local(Path(place), offset, size)
        wanted = ByteRange(place, offset, size)
        if wanted in self._ahead or not size:
            return self._ahead.get(wanted, b"")
        system, _ = self._locate(place)
        return self._request(system, [[wanted]])[0]

    def _request(self, system: Any, requests: list[list[ByteRange]]) -> list[bytes]:
        """Read what each request spans, all at a time where the file system can."""
        paths = [self._locate(joined[0].place)[1] for joined in requests]
        starts = [joined[0].offset for joined in requests]
        ends = [max(wanted.end for wanted in joined) for joined in requests]
        where = str(requests[0][0].place)
        blocks: list[bytes] = tried(
            lambda: system.cat_ranges(paths, starts, ends, on_error="raise"), where
        )
        for joined, start, end, block in zip(requests, starts, ends, blocks, strict=True):
            if len(block) != end - start:
                raise _not_as_indexed(joined[0].place, start, end, len(block))
        return blocks

    def _locate(self, place: Path | str) -> tuple[Any, str]:
        """Find file system and path of a URL, which are another process's after a fork."""
        url = str(place)
        if url not in self._located:
            self._located[url] = locate(url)
        return self._located[url]

    def _read_local(self, path: Path, offset: int, size: int) -> bytes:
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
        self._open.move_to_end(path)
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return os.pread(self._open[path], size, offset)

    def _own(self) -> None:
        """Begin anew where this is the copy of another process."""
        if self._process != os.getpid():
            self._close()
            self.__init__()  # type: ignore[misc]

    def _close(self, close: Callable[[int], None] = os.close) -> None:
        while self._open:
            close(self._open.popitem()[1])  # bound above: modules go before this at the end

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def __del__(self) -> None:
        self._close()


def _joined(ranges: Iterable[ByteRange]) -> list[list[ByteRange]]:
    """Join sorted ranges to groups of which each is read by one request."""
    groups: list[list[ByteRange]] = []
    end = 0
    for wanted in ranges:
        first = groups[-1][0] if groups else None
        is_near = (
            first is not None
            and first.place == wanted.place
            and wanted.offset - end <= MAX_GAP
            and wanted.end - first.offset <= MAX_BLOCK
        )
        end = max(end, wanted.end) if is_near else wanted.end
        if is_near:
            groups[-1].append(wanted)
        else:
            groups.append([wanted])
    return groups


def _not_as_indexed(place: Path | str, start: int, end: int, size: int) -> DataError:
    return DataError(
        f"Bytes {start} to {end} were asked for, and {size} bytes came.",
        where=str(place),
        do="It was changed since it was opened, or its server takes no byte ranges: fetch it.",
    )
