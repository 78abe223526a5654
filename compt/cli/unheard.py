"""Errors that no caller can catch: in threads of libraries, and where Python frees something.

Imports nothing heavy.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def said_in_a_line() -> Iterator[None]:
    """Say in a line, where Python would print a traceback, what is to be blamed on the machine.

    That is that memory or the disk is out, or that another process has ended. What ends the run
    because of that says so too, and what to do.
    """
    of_threads, of_freeing, of_all = threading.excepthook, sys.unraisablehook, sys.excepthook

    def in_thread(unheard: threading.ExceptHookArgs) -> None:
        name = "a thread" if unheard.thread is None else f"the thread '{unheard.thread.name}'"
        if not _is_said(f"{name} has ended", unheard.exc_value):
            of_threads(unheard)

    def on_freeing(unheard: Any) -> None:
        name = getattr(unheard.object, "__qualname__", type(unheard.object).__name__)
        if not _is_said(f"{name} did not end well", unheard.exc_value):
            of_freeing(unheard)

    def anywhere(kind: Any, error: BaseException, traceback: Any) -> None:
        # multiprocessing calls it in a thread of its own.
        if not _is_said("a connection has ended", error):
            of_all(kind, error, traceback)

    threading.excepthook, sys.unraisablehook, sys.excepthook = in_thread, on_freeing, anywhere
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = of_threads, of_freeing
        if sys.excepthook is anywhere:  # torch.distributed puts its own around it
            sys.excepthook = of_all


def _is_said(what: str, error: BaseException | None) -> bool:
    """Say it if the machine is at fault, and return whether it is."""
    if error is None or "torch" not in sys.modules:
        return False
    from compt.training.failures import is_from_outside

    if not is_from_outside(error):
        return False
    print(f"compt: {what}: {type(error).__name__}: {error}", file=sys.stderr)
    return True
