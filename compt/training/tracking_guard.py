"""Keep back ends from ending a training, as one that fails loses records and no more."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from compt.interfaces.tracker import Tracker
from compt.registry.loading import first_line
from compt.training.failures import is_exhausted
from compt.training.tracking_tools import run_key, tracker_of

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds between two attempts to reach a tracker that fails, doubled by every failure."""
PATIENCE = 20
"""How many times longer than the attempt a pause is, at least, so that attempts cost little."""
MAX_REASON = 200
"""Characters of an error that a note shows."""
Records = Mapping[str, Any]


class GuardedBackend(BaseVisBackend):  # type: ignore[misc]
    """A back end that loses records where it fails, and is tried again after a pause.

    What it does not define is the back end's own, so that hooks find in it what they look for.
    """

    def __init__(self, backend: Any, tracker: Tracker, key: str = "") -> None:
        self.backend, self.tracker, self.key = backend, tracker, key
        self.cost: Callable[[int], Records] = lambda step: {}
        self.begin: Callable[[], None] | None = None
        """What starts the run, until that has worked."""
        self.on_failure: Callable[[str], None] = lambda text: None
        self.num_records, self.num_lost, self.reason = 0, 0, ""
        self._failures, self._next_attempt = 0, 0.0

    def __getattr__(self, name: str) -> Any:
        if name == "backend":  # of a copy, before it has one
            raise AttributeError(name)
        return getattr(self.backend, name)

    @property
    def name(self) -> str:
        """Name of the back end's class."""
        return type(self.backend).__name__

    @property
    def experiment(self) -> Any:
        """The back end's own object."""
        return self.backend.experiment

    def _init_env(self) -> None:
        """Do nothing, as the back end does at its first record."""

    def add_config(self, config: Config, **options: Any) -> None:
        """Leave it to :class:`Tracking`, which adds how the stage came about."""

    def add_graph(self, *args: Any, **options: Any) -> None:
        """Record the model's graph."""
        self.record(lambda: self.backend.add_graph(*args, **options))

    def add_image(self, *args: Any, **options: Any) -> None:
        """Record an image."""
        self.record(lambda: self.backend.add_image(*args, **options))

    def add_scalar(self, *args: Any, **options: Any) -> None:
        """Record a number."""
        self.record(lambda: self.backend.add_scalar(*args, **options))

    def add_scalars(self, scalar_dict: Records, step: int = 0, *args: Any, **options: Any) -> None:
        """Record numbers, with what the chain has cost until then."""

        def send() -> None:
            scalars = self.tracker.scalars({**scalar_dict, **self.cost(step)}, step)
            self.backend.add_scalars(scalars, step, *args, **options)

        self.record(send)

    def close(self) -> None:
        """Stay open, as the files of the stage's end are not yet written."""

    def finish(self, *, failed: bool) -> None:
        """End the run, if it has begun."""
        if self.begin is None:
            self._attempt(lambda: self.tracker.close(self.backend, failed=failed))

    def record(self, send: Callable[[], None]) -> None:
        """Send one record, or count it as lost.

        Raises:
            Exception: memory or the disk is out, which the stage cannot go on without.
        """
        self.num_records += 1
        if time.monotonic() < self._next_attempt or not self._attempt(lambda: self._send(send)):
            self.num_lost += 1

    def _send(self, send: Callable[[], None]) -> None:
        if self.begin is not None:
            self.begin()
            self.begin = None
        send()

    def _attempt(self, send: Callable[[], None]) -> bool:
        """Return whether it worked; otherwise say why, the first time, and set a pause."""
        start = time.monotonic()
        try:
            send()
        except Exception as error:  # every tracker has its own
            if is_exhausted(error):
                raise
            now = time.monotonic()
            pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
            self._next_attempt = now + max(pause, PATIENCE * (now - start))
            self._failures += 1
            if not self.reason:
                self.reason = textwrap.shorten(first_line(error), MAX_REASON)
                self.on_failure(self.reason)
            return False
        self._failures = 0
        return True


def guarded(visualizer: Visualizer) -> Visualizer:
    """Put a guard around every back end of a visualizer."""
    backends = visualizer._vis_backends
    for name, backend in backends.items():
        config = {"type": _registered_as(backend)}
        backends[name] = GuardedBackend(backend, tracker_of(config), run_key(config))
    return visualizer


def _registered_as(backend: Any) -> str:
    """Return what a config calls a back end, which may be another name than its class's."""
    names = [name for name, kind in VISBACKENDS.module_dict.items() if kind is type(backend)]
    return names[0] if names else type(backend).__name__
