"""End the processes that runs are in at a deadline, or with the process that started them."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Any, Protocol

import torch

from compt.errors import ComptError

_STARTER_IS_GONE = threading.Event()
"""Set in a process of its own once the one that started it is gone."""


class Job(Protocol):
    """What is run."""

    def run(self) -> str:
        """Run it, and return what went wrong, '' if nothing did."""


def prepare_worker(threads: int, deadline: float) -> None:
    """Get a process of its own ready for runs, until the deadline or the end of its starter."""
    torch.set_num_threads(threads)
    # mmengine sets the start method for workers of its own, and warns that it differs.
    warnings.filterwarnings("ignore", message="Multi-processing start method")
    _arm(deadline)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Stop this process once the one that started it is gone.

    Its runs would go on unseen, and keep their folders locked.
    """
    if (parent := parent_process()) is not None:
        parent.join()
        _STARTER_IS_GONE.set()
        os.kill(os.getpid(), signal.SIGTERM)  # a run that is under way saves


def run_job(job: Job, deadline: float) -> str:
    """Run a job in whatever process, unless the time is over.

    A stage that is stopped by the end of the time ends the job.
    """
    if time.time() >= deadline:
        return "out of time"
    try:
        return job.run()
    except ComptError:
        if time.time() >= deadline:
            return "out of time"
        raise
    finally:
        if _STARTER_IS_GONE.is_set():
            os._exit(1)


def _arm(deadline: float) -> Callable[[], None]:
    """Ask this process to stop from the deadline on, as the system would.

    Call what is returned to ask no more. Only a stage in training hears it, which saves and ends;
    so it is asked again and again. To raise here instead would break into whatever runs, which may
    take it for a failure of its own.
    """
    if math.isinf(deadline):
        return lambda: None
    done = threading.Event()

    def outside(number: int, _: Any) -> None:
        if _STARTER_IS_GONE.is_set() or time.time() < deadline:  # it was not us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def ask() -> None:
        done.wait(max(0.0, deadline - time.time()))
        while not done.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            done.wait(0.2)

    signal.signal(signal.SIGTERM, outside)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()

    def disarm() -> None:
        done.set()
        thread.join()

    return disarm


@contextmanager
def stopped_at(deadline: float) -> Iterator[None]:
    """Stop what trains inside at the deadline."""
    handler = signal.getsignal(signal.SIGTERM)
    disarm = _arm(deadline)
    try:
        yield
    finally:
        disarm()
        signal.signal(signal.SIGTERM, handler)
