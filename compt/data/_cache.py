"""Makes things once, by one of several processes, and keeps them in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from compt.errors import DataError
from compt.files import CACHE_ENVIRONMENT, cache_folder

T = TypeVar("T")


def unwritable(folder: Path, error: OSError, megabytes: float) -> DataError:
    """Make the error for a cache folder that is full, read-only or not a folder."""
    return DataError(
        f"The cache cannot be written: {error.strerror or error}.",
        where=str(folder),
        do=f"Make room for {megabytes:.0f} MB there, "
        f"or set {CACHE_ENVIRONMENT} to a folder that has it.",
    )


def key_of(*values: Any) -> str:
    """Make a name for values that can be written as JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]


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
    cached = find(file)
    if cached is not None:
        return cached
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            cached = find(file)
            return make(file) if cached is None else cached
    except OSError as error:
        raise unwritable(file.parent, error, megabytes + 1) from error


@contextmanager
def progress(task: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and yield what moves it to a position.

    Args:
        task: what it says.
        total: the position of its end; None where that is not known.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        number = bar.add_task(task, total=total)
        yield lambda done: bar.update(number, completed=done)
