"""Measure what a stage takes of the machine, as time to evaluate, memory and energy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from compt.report.outcome import Usage
from compt.training.meters import (
    EnergyCounter,
    energy_counters,
    meter_kinds,
    peak_device_memory_bytes,
    peak_memory_bytes,
    reset_peaks,
)
from compt.training.performance import number_format

KEY = "compt_usage"
"""Under which a checkpoint has what the stage took up to it."""
NOTHING = Usage(evaluation_seconds=0.0, data_seconds=0.0, checkpoint_seconds=0.0, energy_joules=0.0)
"""Taken before a stage begins."""
READ_EVERY = 10.0
"""Seconds between two readings of counters of energy, which go round within minutes."""


class UsageHook(Hook):
    """Measures what a stage takes, from its start or the checkpoint that it goes on from."""

    def __init__(self) -> None:
        self._evaluation_seconds, self._evaluated_since = 0.0, 0.0
        self._counters: list[EnergyCounter] = []
        self._read_at = 0.0
        self._earlier = NOTHING
        """Taken before the stage was interrupted."""
        self._is_resumed = self._is_begun = False
        self._loop: Any = None
        self._precision = ""

    def before_train(self, runner: Runner) -> None:
        """Begin to measure."""
        reset_peaks()
        self._loop = runner.train_loop
        performance = self._loop.stage.performance
        self._precision = number_format(performance.precision, runner.optim_wrapper)
        self._counters = energy_counters()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what the stage has taken, for one that goes on from here."""
        checkpoint[KEY] = self._taken(self._joules()).usage

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take over what the stage took before it was interrupted.

        One that merely goes back to a checkpoint has still taken what it took since.
        """
        if not self._is_begun:
            self._earlier, self._is_resumed = Usage(**checkpoint.get(KEY, {})), True

    def before_train_epoch(self, runner: Runner) -> None:
        """Note that training begins."""
        self._is_begun = True

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Read the counters of energy when it is time."""
        self._read_in_time()

    def before_val(self, runner: Runner) -> None:
        """Note when an evaluation begins."""
        self._evaluated_since = time.perf_counter()

    def before_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Read the counters of energy when it is time."""
        self._read_in_time()

    def after_val(self, runner: Runner) -> None:
        """Add the time of the evaluation."""
        self._evaluation_seconds += time.perf_counter() - self._evaluated_since

    def result(self) -> Usage:
        """Return what the stage took, which all processes of a run have to ask together."""
        joules = self._joules()
        if get_world_size() == 1:
            return self._taken(joules)
        # By name, as processes of one machine read the same counters of its processors.
        joules = {name: j for share in all_gather_object(joules) for name, j in share.items()}
        # A checkpoint has the main process's energy alone.
        return self._taken({} if self._is_resumed else joules)

    def _read_in_time(self) -> None:
        if self._counters and time.perf_counter() - self._read_at > READ_EVERY:
            self._joules()

    def _joules(self) -> dict[str, float]:
        """Return what this process's counters have counted, by name."""
        self._read_at = time.perf_counter()
        return {counter.name: counter.joules() for counter in self._counters}

    def _taken(self, joules: Mapping[str, float]) -> Usage:
        """Return what the stage took, before an interruption too."""
        earlier, meters = self._earlier, meter_kinds(joules)
        processes, precision = get_world_size(), self._precision
        is_first = earlier is NOTHING
        is_like_earlier = is_first or tuple(earlier.energy_meters) == meters
        energy = sum(joules.values()) if joules and is_like_earlier else None
        return Usage(
            evaluation_seconds=_total(self._evaluation_seconds, earlier.evaluation_seconds),
            data_seconds=_total(self._loop.data_seconds, earlier.data_seconds),
            checkpoint_seconds=_total(self._loop.checkpoint_seconds, earlier.checkpoint_seconds),
            peak_memory_bytes=_most(peak_memory_bytes(), earlier.peak_memory_bytes),
            peak_device_memory_bytes=_most(
                peak_device_memory_bytes(), earlier.peak_device_memory_bytes
            ),
            energy_joules=_total(energy, earlier.energy_joules),
            energy_meters=() if energy is None else meters,
            processes=processes if is_first or earlier.processes == processes else None,
            precision=precision if is_first or earlier.precision == precision else None,
        )


def _total(now: float | None, earlier: float | None) -> float | None:
    return None if now is None or earlier is None else now + earlier


def _most(now: int | None, earlier: int | None) -> int | None:
    return max((value for value in (now, earlier) if value is not None), default=None)
