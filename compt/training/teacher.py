"""The frozen teacher of a stage, with what its outputs cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compt.config.teachers import TeacherOptions
from compt.errors import TrainingError
from compt.files import cache_folder
from compt.interfaces import Batch, Outputs
from compt.interfaces.nested import map_tensors
from compt.training.distributed import largest_of_all
from compt.training.performance import Performance
from compt.training.sharding import Held, forget_order
from compt.training.teacher_cache import OutputCache, row_checksums

MOST_PENDING = 64
"""Measured runs of a GPU whose time is not read yet."""


class Teacher:
    """A frozen model and how it is run.

    It is no module: as one of the stage it would be in its state dict, among the optimizer's
    parameters, and back in training mode.

    Args:
        model: in eval mode, without gradients.
        forward: of the paradigm, for a model, a batch and the outputs that are needed.
        options: of the stage.
        performance: of the student, which holds where the options say nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[..., Outputs],
        options: TeacherOptions,
        performance: Performance,
    ) -> None:
        self.model, self.options = model, options
        self.precision = options.precision or performance.precision
        self._student_precision = performance.precision
        own = performance
        if options.compile is not None:
            own = replace(performance, compile=options.compile)
            if performance.compile is False and own.compile is not False:
                torch.compiler.reset()  # as for a student, see Performance.prepare
        self.forward = own.divided(own.compiled(forward))
        self.cache: OutputCache | None = None
        self.numbers: Tensor | None = None
        """Of the samples of the batch, on the CPU, where there is a cache."""
        self.num_runs = 0
        """Iterations at which the model was run."""
        self.watch = Stopwatch()
        self._is_counted = True
        self._changed: Tensor | None = None
        """How many samples looked otherwise than when they were cached, on the device."""

    def is_due(self, iteration: int) -> bool:
        """Tell whether the teacher has something to say at an iteration.

        It is the last of every n: logs, too, are written after every n-th.
        """
        return (iteration + 1) % self.options.every == 0

    def open_cache(self, key: Mapping[str, Any], num_samples: int) -> None:
        """Keep the outputs of so many samples under all that they depend on."""
        self.cache = OutputCache(cache_place(self.options), key, num_samples)

    def outputs(self, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Return what the teacher says of a prepared batch, without gradients."""
        device = next(self.model.parameters()).device
        with torch.no_grad(), self.watch.running(device), self._context(device.type):
            if self.cache is None:
                return self._run(batch, needs)
            return self._cached(self.cache, batch, needs)

    def _cached(self, cache: OutputCache, batch: Batch, needs: frozenset[str]) -> Outputs:
        assert self.numbers is not None
        inputs, known = row_checksums(batch), cache.read(self.numbers)
        if cache.num_damaged:
            warnings.warn(
                f"{cache.num_damaged} samples in '{cache.folder}' are not what was written: the "
                "teacher is run on them again.",
                stacklevel=2,
            )
            cache.num_damaged = 0
        if known is None:
            outputs = self._run(batch, needs)
            cache.write(self.numbers, inputs, {name: outputs[name] for name in needs})
            return outputs
        outputs, of_inputs = known
        sent = map_tensors(lambda t: t.to(inputs.device, non_blocking=True), (outputs, of_inputs))
        num_changed = (sent[1] != inputs).sum()
        self._changed = num_changed if self._changed is None else self._changed + num_changed
        result: Outputs = sent[0]
        return result

    def _run(self, batch: Batch, needs: frozenset[str]) -> Outputs:
        self.num_runs += 1
        outputs: Outputs
        if isinstance(self.model, Held):
            outputs = self.model(self.forward, batch, needs)
            forget_order(self.model)
        else:
            outputs = self.forward(self.model, batch, needs)
        if self.precision == self._student_precision or self._student_precision != "fp32":
            return outputs
        return {
            name: output.float() if output.is_floating_point() else output
            for name, output in outputs.items()
        }

    def _context(self, device: str) -> AbstractContextManager[None]:
        if self.options.precision is None:
            return nullcontext()
        return torch.autocast(device, torch.bfloat16, enabled=self.options.precision == "bf16")

    def check(self) -> None:
        """Raise TrainingError where samples were others than when their outputs were cached.

        It waits for the device, and every process has to call it.
        """
        if self.cache is None:
            return
        own, self._changed = int(self._changed or 0), None
        (num_changed,) = largest_of_all(own)
        if num_changed:
            raise TrainingError(
                f"{num_changed} samples are others than when the teacher was run on them, so its "
                "cached outputs are not of them: data or preparation draw random numbers.",
                where=f"teacher.cache, {self.cache.folder}",
                do="Switch augmentation and random masks off, or leave out teacher.cache.",
            )

    def usage(self) -> dict[str, Any]:
        """Return what the teacher took so far, as records have it."""
        if not self._is_counted:
            return {}
        return {"teacher_iters": self.num_runs, "teacher_seconds": self.watch.seconds()}

    def resume(self, usage: Mapping[str, Any]) -> None:
        """Go on counting from a :meth:`usage`, which is empty where nobody has counted so far."""
        self._is_counted = bool(usage)
        if not usage:
            return
        self.num_runs = usage["teacher_iters"]
        self.watch = Stopwatch(usage["teacher_seconds"])


class Stopwatch:
    """Adds up the time of what runs on a device, without waiting for it.

    Args:
        seconds: to begin with.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._pending: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Count the time from here to the end of the block."""
        if device.type != "cuda":
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._pending.append((begin, end))
        while len(self._pending) > MOST_PENDING and self._pending[0][1].query():
            self._read(*self._pending.pop(0))

    def _read(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> None:
        self._seconds += begin.elapsed_time(end) / 1e3

    def seconds(self) -> float:
        """Return the time so far, once the device has come to its end."""
        for begin, end in self._pending:
            end.synchronize()
            self._read(begin, end)
        self._pending.clear()
        return self._seconds


def cache_place(options: TeacherOptions) -> Path:
    """Return the folder of the caches that the options of a stage name."""
    if isinstance(options.cache, str):
        return Path(options.cache).expanduser().absolute()
    return cache_folder() / "teachers"
