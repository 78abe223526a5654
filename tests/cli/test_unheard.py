"""Errors that no caller can catch are one line where the machine is at fault, as they are else."""

from __future__ import annotations

import errno
import logging
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from compt.cli.unheard import said_in_a_line
from compt.training.failures import say_once

FULL = OSError(errno.ENOSPC, "No space left on device")


class Freed:
    """Raises where nobody hears it."""

    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


def told(error):
    return SimpleNamespace(exc_value=error)


def in_a_thread(error):
    def fail():
        raise error

    thread = threading.Thread(target=fail, name="events")
    thread.start()
    thread.join()


def in_multiprocessing(error):
    """As its resource_sharer tells of an error in its thread."""
    sys.excepthook(type(error), error, error.__traceback__)


@pytest.mark.parametrize("happens", [Freed, in_a_thread, in_multiprocessing])
@pytest.mark.parametrize(
    "error",
    [
        FULL,
        MemoryError("no room"),
        torch.OutOfMemoryError("of 2 MiB"),
        RuntimeError("DataLoader worker (pid 27) is killed by signal: Killed."),
        RuntimeError("Connection closed by peer [127.0.0.1]:17645"),
    ],
)
def test_what_the_machine_has_no_room_for_is_one_line(capsys, happens, error):
    with said_in_a_line():
        happens(error)
    said = capsys.readouterr().err
    assert said.startswith("compt: ")
    assert str(error) in said
    assert said.count("\n") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("happens", [Freed, in_a_thread, in_multiprocessing])
def test_all_else_is_reported_as_ever(monkeypatch, happens):
    heard = []
    monkeypatch.setattr("threading.excepthook", heard.append)
    monkeypatch.setattr("sys.unraisablehook", heard.append)
    monkeypatch.setattr("sys.excepthook", lambda _, error, __: heard.append(told(error)))
    with said_in_a_line():
        happens(KeyError("own"))
    assert [type(unheard.exc_value) for unheard in heard] == [KeyError]


@pytest.mark.parametrize(("error", "lines"), [(FULL, 1), (KeyError("own"), 0)])
def test_a_log_without_room_says_so_once(capsys, monkeypatch, error, lines):
    class Failing(logging.Handler):
        def emit(self, record):
            try:
                raise error
            except Exception:
                self.handleError(record)

    monkeypatch.setattr(logging, "raiseExceptions", True)
    handler = Failing()
    say_once(handler)
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "step"}))
    said = capsys.readouterr().err
    assert said.count("lines of the stage's log are lost") == lines
    assert said.count("Logging error") == (0 if lines else 3)
