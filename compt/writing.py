"""Write a file or a folder whole or not at all, and say what the system refuses.

Imports nothing heavy.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compt.errors import ComptError, TrainingError, WorkDirError
from compt.shards import index_of, shards_beside

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG))
"""Of a disk that cannot be written any more."""
OF_TORCH = {
    errno.ENOSPC: r"No space left|Disk quota exceeded|PytorchStreamWriter failed|unexpected pos",
    errno.ENOENT: r"Parent directory .* does not exist|strerror: No such file",
    errno.EACCES: r"strerror: Permission denied",
    errno.EROFS: r"strerror: Read-only file system",
}
"""How torch says what the system has refused, by the system's number."""
OF_RUST = re.compile(r'\(os error (\d+)\)(?: at path "(.*)")?')
"""How libraries written in Rust say what the system has refused."""

_UMASK = threading.Lock()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a file beside ``path`` that takes its name once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield beside
        share(beside)
        # A rename may reach the disk before the content it names: after a power cut the
        # file would be there, empty, and --resume would take the stage for finished.
        bring_to_disk(beside)
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        # Where the disk is full the system does not say for which file.
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def check_output(out: Path) -> None:
    """Raise WorkDirError unless a folder to write to is empty or not there."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise WorkDirError(
            "The folder exists and is not empty." if out.is_dir() else "There is a file already.",
            where=str(out),
            do="Choose another with -o.",
        )


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield a folder whose content is in ``out`` once all of it is written.

    Whatever ends the work before, ``out`` is not there, or empty as it was.

    Raises:
        WorkDirError: the disk is full, or the folder cannot be written.
    """
    # Beside a new folder, which one rename then makes whole. One that is there may be a place
    # where something is mounted, of which nothing beside it knows.
    parent = out if out.exists() else out.absolute().parent
    folder = parent / f".{out.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        folder.mkdir(parents=True)
        yield folder
        share(folder)
        if parent == out:
            for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".json"):
                path.rename(out / path.name)
        else:
            folder.rename(out)
    except Exception as error:
        if refusal(error) is None:
            raise
        free = shutil.disk_usage(parent).free / 2**20 if parent.is_dir() else 0
        raise WorkDirError(
            f"'{out.name}' could not be written: {error}.",
            where=f"{parent} ({free:.0f} MiB free)",
            do="Make room, or choose another place with -o.",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_weights(path: Path) -> Iterator[Path]:
    """Yield an empty folder, whose files take the place of weights once all are complete.

    They are one file of the name of ``path``, or shards and their index. Whatever ends the work
    before leaves the weights that were there, or none.
    """
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    folder.mkdir(parents=True)
    try:
        yield folder
        share(folder)
        bring_to_disk(folder)
        files, index = {file.name for file in folder.iterdir()}, index_of(path)
        # No index may stand beside shards of two models, on the disk neither: so it goes first
        # and comes last.
        if index.is_file():
            index.unlink()
            _sync(path.parent)
        for name in sorted(files - {index.name}):
            os.replace(folder / name, path.with_name(name))
        _sync(path.parent)
        if index.name in files:
            os.replace(folder / index.name, index)
            _sync(path.parent)
        for file in {path, *shards_beside(path)}:
            if file.name not in files:
                file.unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def share(path: Path) -> None:
    """Give a file, or all files in a folder, the permissions of any new one."""
    # safetensors writes files that their owner alone may read, whatever the umask is. To
    # read the umask is to set it.
    with _UMASK:  # a thread may write a checkpoint meanwhile
        mask = os.umask(0)
        os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            file.chmod(0o666 & ~mask)


def bring_to_disk(path: Path) -> None:
    """Wait until a file, or all files and names in a folder, are on disk."""
    inside = [path, *path.rglob("*")] if path.is_dir() else [path]
    for entry in inside:
        if entry.is_dir():
            _sync(entry)
        else:
            with open(entry, "rb+") as file:
                os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make a rename in this folder durable, where the system allows it."""
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refusal(error: BaseException) -> OSError | None:
    """Return what the system has refused to a library, None for an error of another kind.

    torch, and libraries written in Rust such as safetensors and tokenizers, raise errors of types
    of their own.
    """
    if isinstance(error, ComptError):
        return None
    if isinstance(error, OSError):
        return error
    text = str(error)
    if of_rust := OF_RUST.search(text):
        number = int(of_rust[1])
        return OSError(number, os.strerror(number), of_rust[2])
    of_torch = (number for number, form in OF_TORCH.items() if re.search(form, text))
    return next((OSError(number, text) for number in of_torch), None)


def not_written(path: Path, error: Exception) -> TrainingError:
    """Return the error for a file of a run that could not be written."""
    free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0
    return TrainingError(
        f"Could not write '{path.name}': {error}.",
        where=f"{path.parent} ({free:.0f} MiB free)",
        do="Make room or choose another --work-dir; what was written before is kept, "
        "and --resume goes on from it.",
    )


def sweep(folder: Path, pattern: str = ".*.tmp") -> None:
    """Remove what an interrupted write left behind."""
    for leftover in folder.rglob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
