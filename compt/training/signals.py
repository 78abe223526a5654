"""Signals that ask a stage to stop, or a command to end.

Imports nothing heavy.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

S = TypeVar("S", bound="_Handlers")
NUMBERS = (signal.SIGINT, signal.SIGTERM)


def exit_code(number: int) -> int:
    """Return what a program that a signal ends exits with, as shells write it."""
    return 128 + number


class _Handlers:
    """Handles SIGINT and SIGTERM while it is entered, in the main thread.

    Python lets no other thread set handlers: entered there, nothing is handled.
    """

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self: S) -> S:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in NUMBERS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        raise NotImplementedError


@contextmanager
def by_default() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once, as in a call that never comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interruptible(_Handlers):
    """Raises KeyboardInterrupt at SIGTERM as at SIGINT, and remembers which it was.

    What is open is then closed, and half-written files are removed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()
        self.number = 0
        """Of the last signal, 0 while none has come."""

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process and number == signal.SIGTERM:
            # A forked process has the handler too, and ends as it would without.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        raise KeyboardInterrupt


class StopSignals(_Handlers):
    """Notes SIGINT and SIGTERM, instead of dying in the middle of a step.

    A second SIGINT raises KeyboardInterrupt at once. One that came too late to be looked for, as
    while the last checkpoint is written, comes again at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received: list[int] = []

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if self.first and not any(exc):
            signal.raise_signal(self.first)

    @property
    def first(self) -> int:
        """The number of the signal that came first, 0 while none has come."""
        return self._received[0] if self._received else 0

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in self._received:
            raise KeyboardInterrupt
        self._received.append(number)
