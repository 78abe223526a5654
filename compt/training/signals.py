"""Signals that ask a stage to stop."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopSignals:
    """Notes SIGINT and SIGTERM while it is entered, instead of dying in the middle of a step.

    A second SIGINT raises KeyboardInterrupt at once. Python lets only the main thread set
    handlers: entered in another thread, nothing is noted.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous_handlers: dict[signal.Signals, Any] = {}

    @property
    def first(self) -> int:
        """The number of the signal that came first, 0 while none has come."""
        return self._received[0] if self._received else 0

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in self._received:
            raise KeyboardInterrupt
        self._received.append(number)
