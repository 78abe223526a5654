"""Measure how fast a stage is, and how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Seconds that a rate is taken over."""


class Pace:
    """How many FLOPs and samples a second a stage makes, and what a run spends on evaluations.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, float, float]] = deque()
        """Time without evaluations, FLOPs and samples of the stage, over the window."""
        self._evaluated = 0.0
        self._evaluating_since: float | None = None
        self._begun = clock()
        self._updated = clock()
        self.flops_per_second: float | None = None
        self.samples_per_second: float | None = None

    def begin(self) -> None:
        """Begin a stage, or a part of it that is measured alone."""
        self.evaluated()
        self._marks.clear()
        self.flops_per_second = self.samples_per_second = None

    def mark(self, flops: float, samples: float) -> None:
        """Take how much of the stage is done now."""
        now = self._training_time()
        if self._marks and flops < self._marks[-1][1]:  # it went back to a checkpoint
            self._marks.clear()
        self._marks.append((now, flops, samples))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            self._marks.popleft()
        first_time, first_flops, first_samples = self._marks[0]
        seconds = now - first_time
        if seconds > 0:
            self.flops_per_second = (flops - first_flops) / seconds
            self.samples_per_second = (samples - first_samples) / seconds
        self._updated = self._clock()

    @property
    def window(self) -> tuple[float, float, float]:
        """The seconds of training, FLOPs and samples that the rates are taken over."""
        if not self._marks:
            return 0.0, 0.0, 0.0
        first, last = self._marks[0], self._marks[-1]
        return last[0] - first[0], last[1] - first[1], last[2] - first[2]

    def evaluating(self) -> None:
        """Stop the clock of training."""
        self._evaluating_since = self._clock()

    def evaluated(self) -> None:
        """Let the clock of training go on."""
        if self._evaluating_since is not None:
            self._evaluated += self._clock() - self._evaluating_since
            self._evaluating_since = None

    def seconds_for(self, flops: float) -> float | None:
        """Return how long so many FLOPs of the stage will take from now.

        None before a rate is known.
        """
        if not self.flops_per_second:
            return None
        seconds = self.with_evaluations(flops / self.flops_per_second)
        return max(0.0, seconds - (self._clock() - self._updated))

    def with_evaluations(self, seconds: float) -> float:
        """Add to seconds of training as much for evaluations as they have taken so far."""
        trained = self._training_time() - self._begun
        return seconds * (1 + self._evaluated / trained) if trained > 0 else seconds

    def _training_time(self) -> float:
        now = self._clock()
        evaluating = 0.0 if self._evaluating_since is None else now - self._evaluating_since
        return now - self._evaluated - evaluating
