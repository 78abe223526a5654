"""Say in one line what ended a stage from outside, such as a killed process or a full disk."""

from __future__ import annotations

import errno
import logging
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from compt.errors import ComptError, TrainingError
from compt.registry.loading import first_line
from compt.writing import FULL, not_written, refusal

DEATH = re.compile(r"DataLoader worker \(pid.*?\d+\) (.*)")
"""How torch says that a process which reads samples has died."""
IN_WORKER = "in DataLoader worker process"
"""What torch's message of an error in such a process has; the process's own traceback follows."""
PROCESSES = "multiprocessing"
NO_MEMORY = re.compile(
    r"can't allocate memory|Cannot allocate memory|bad_alloc|start new thread|"
    r"could not (create|execute) a primitive"
)
"""How torch, oneDNN and the system say that memory is out, of which threads want their own."""
GONE = re.compile(r"(closed|reset) by peer|gloo/transport/")
"""How gloo says that the process at the other end has ended, in one of many ways."""
FORBIDDEN = frozenset((errno.EACCES, errno.EPERM))


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Raise TrainingError where a process has died, or memory or the disk is out.

    All else is passed on.

    Args:
        where: folder of the stage.
    """
    # torch reports a death from a signal handler, which may run while another error is explained.
    with _explained(where), _explained(where):
        yield


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except ComptError as error:
        if DEATH.search(error.what):  # it came while something else was done, such as writing
            what, do = _death(error.what)
            raise TrainingError(what, where=where, do=do) from error
        if IN_WORKER not in error.what:
            raise
        own = error.what.rpartition(f"{type(error).__name__}: ")[2]
        raise type(error)(own.strip()) from error
    except Exception as error:
        if unwritten := _unwritten(error, where):
            raise not_written(unwritten, error) from error
        explanation = _explanation(error)
        if explanation is None:
            raise
        what, do = explanation
        raise TrainingError(what, where=where, do=do) from error


def is_exhausted(error: BaseException) -> bool:
    """Return whether memory or the disk is out, or the disk cannot be written any more."""
    refused = refusal(error)
    is_full = refused is not None and refused.errno in FULL
    return is_full or _is_out_of_memory(error)


def is_from_outside(error: BaseException) -> bool:
    """Return whether memory or the disk is out, or another process has ended."""
    return is_exhausted(error) or _is_of_reader(error) or _is_of_process(error)


def say_once(handler: logging.Handler) -> None:
    """Let a log that the machine has no room for say so in a line, once, and not in a traceback."""
    by_default = handler.handleError
    told: list[BaseException] = []

    def handle(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if error is None or not is_exhausted(error):
            by_default(record)
        elif not told:
            told.append(error)
            print(f"compt: lines of the stage's log are lost: {error}", file=sys.stderr)

    handler.handleError = handle  # type: ignore[method-assign]


def _is_out_of_memory(error: BaseException) -> bool:
    of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return of_memory or NO_MEMORY.search(str(error)) is not None


def _unwritten(error: Exception, where: str) -> Path | None:
    """Return the file, or else the folder, that could not be written, None for another error."""
    refused = refusal(error)
    if refused is None:
        return None
    name = refused.filename if isinstance(refused.filename, str) else ""
    if refused.errno in FULL:
        return Path(name or where)
    is_in_run = Path(where) in Path(name).absolute().parents
    return Path(name) if refused.errno in FORBIDDEN and is_in_run else None


def _explanation(error: Exception) -> tuple[str, str] | None:
    """Return what has happened and what to do, None for an error that stands for itself."""
    if _is_of_reader(error):
        return _death(str(error))
    if _is_out_of_memory(error):
        return (
            f"Out of memory: {first_line(error)}",
            "Free some and go on with --resume, with a lower train_dataloader.num_workers or with "
            "more processes. Or lower train_dataloader.batch_size, and begin the stage anew: "
            "--resume --from-stage NAME.",
        )
    if _is_of_process(error):
        return (
            f"Another process of the run has ended: {first_line(error)}",
            "See what that process says, and go on with --resume.",
        )
    return None


def _is_of_reader(error: BaseException) -> bool:
    """Return whether a process that reads samples has ended."""
    # Killed while it hands over a batch, it leaves a broken connection.
    is_cut_off = isinstance(error, ConnectionError | EOFError) and _came_from(error, PROCESSES)
    return is_cut_off or DEATH.search(str(error)) is not None


def _is_of_process(error: BaseException) -> bool:
    """Return whether another process of the run has ended."""
    is_told = isinstance(error, torch.distributed.DistError)
    return is_told or GONE.search(str(error)) is not None


def _death(text: str) -> tuple[str, str]:
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        # torch would raise the same again wherever the system's note of the death arrives.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    death = DEATH.search(text)
    end = death[1].rstrip(". ") if death else "ended before its batch was there"
    return (
        f"A process that reads samples has died: it {end}.",
        "The system kills processes when memory runs out. Lower train_dataloader.num_workers or "
        "batch_size, and go on with --resume.",
    )


def _came_from(error: BaseException, package: str) -> bool:
    """Tell whether an error was raised in a package, or in a call from it."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(package in Path(frame.f_code.co_filename).parts for frame, _ in frames)
