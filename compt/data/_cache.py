"""What is made once, by one of several processes, and kept in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from platformdirs import user_cache_dir

from compt.errors import DataError

ENVIRONMENT = "COMPT_CACHE_DIR"
T = TypeVar("T")


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder given, else that of COMPT_CACHE_DIR, else the user's cache folder; it may not
    exist yet.
    """
    return (
        Path(cache_dir or os.environ.get(ENVIRONMENT) or user_cache_dir("compt"))
        .expanduser()
        .absolute()
    )


def unwritable(folder: Path, error: OSError, megabytes: float) -> DataError:
    """The error for a cache folder that is full, read-only or not a folder."""
    return DataError(
        f"The cache cannot be written: {error.strerror or error}.",
        where=str(folder),
        do=f"Make room for {megabytes:.0f} MB there, or set {ENVIRONMENT} to a folder that has it.",
    )


def key_of(*what: Any) -> str:
    """A name for what can be written as JSON."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def once(
    name: str,
    cache_dir: str | Path | None,
    *,
    find: Callable[[Path], T | None],
    make: Callable[[Path], T],
    megabytes: float,
) -> T:
    """Find something in the cache, or else make it there while other processes wait.

    Args:
        name: of its file, relative to the cache folder.
        find: returns what the file holds, None if that is nothing or damaged.
        make: writes the file and returns what it holds.
        megabytes: what it may take, for the error.

    Raises:
        DataError: the cache cannot be written.
    """
    file = cache_folder(cache_dir) / name
    found = find(file)
    if found is not None:
        return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            found = find(file)
            return found if found is not None else make(file)
    except OSError as error:
        raise unwritable(file.parent, error, megabytes + 1) from error


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, gone at the end; yields what moves it to a position."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
