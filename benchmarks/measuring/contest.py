"""Let several programs train the same in turns, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

WARM_UP = 10
"""Iterations before anything is timed, whose losses are compared."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Finished(BaseException):
    """Ends a program when all turns have been taken; no program catches it."""


class Baton:
    """What a program tells after each of its iterations, and waits for between its turns."""

    def __init__(self, connection: Connection, iters: int) -> None:
        self.connection, self.iters = connection, iters
        self.losses: list[float] = []
        self._num_done = 0

    def step(self, loss: Any) -> None:
        """Note an iteration.

        Raises:
            Finished: it was the last.
        """
        self._num_done += 1
        if self._num_done <= WARM_UP:
            self.losses.append(float(loss))
        if self._num_done == WARM_UP:
            self.connection.send({"losses": self.losses})
            self._wait()
        elif self._num_done > WARM_UP and (self._num_done - WARM_UP) % self.iters == 0:
            pairs = zip(self._start, now(), strict=True)
            wall, processor, faults = ((b - a) / self.iters for a, b in pairs)
            times = {"wall": 1e3 * wall, "processor": 1e3 * processor, "faults": faults}
            self.connection.send(times)
            self._wait()

    def _wait(self) -> None:
        if self.connection.recv() != "go":
            raise Finished
        self._start = now()


def now() -> tuple[float, float, int]:
    """Return wall and processor time and page faults, once the device has done what it was given.

    A page fault is 4 kB of memory that the system hands out: time that no profile of torch shows.
    """
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return time.perf_counter(), time.process_time(), faults


@dataclass
class Turns:
    """What one program needed for an iteration in each of its turns, times in milliseconds."""

    losses: list[float]
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    """Page faults."""

    def append(self, other: Turns) -> None:
        """Take in the turns of the same program, started again."""
        self.wall += other.wall
        self.processor += other.processor
        self.faults += other.faults


def hold(
    programs: Mapping[str, Callable[..., None]],
    task: Any,
    *,
    starts: int = 1,
    rounds: int,
    iters: int,
) -> tuple[dict[str, Turns], dict[str, str]]:
    """Let programs take turns, and return their times, and why others were left out.

    Args:
        programs: by name; each is called with the task and a :class:`Baton`. They are pickled.
        task: what to train.
        starts: how often each is started anew, with turns after each. Processes of one program
            differ in speed by where the system puts their memory.
        rounds: turns of each after a start.
        iters: iterations of a turn.
    """
    turns: dict[str, Turns] = {}
    failed: dict[str, str] = {}
    for _ in range(starts):
        left = {name: program for name, program in programs.items() if name not in failed}
        new, new_failed = _hold(left, task, rounds, iters)
        failed |= new_failed
        for name, one in new.items():
            if name in turns:
                turns[name].append(one)
            else:
                turns[name] = one
    return {name: one for name, one in turns.items() if name not in failed}, failed


def _hold(
    programs: Mapping[str, Callable[..., None]], task: Any, rounds: int, iters: int
) -> tuple[dict[str, Turns], dict[str, str]]:
    # A fresh process each: libraries change registries, hooks and threads of the one they are in.
    context = multiprocessing.get_context("spawn")
    ends, processes, failed = {}, [], {}
    turns: dict[str, Turns] = {}
    try:
        for name, program in programs.items():
            here, there = context.Pipe()
            process = context.Process(target=_run, args=(program, task, there, iters), daemon=True)
            process.start()
            there.close()
            processes.append(process)
            answer = _answer(here)
            if "losses" in answer:  # one by one, so that no start disturbs another's warm-up
                ends[name], turns[name] = here, Turns(answer["losses"])
            else:
                failed[name] = answer["error"]
        order = list(ends)
        for _ in range(rounds):
            for name in order:
                ends[name].send("go")
                times = _answer(ends[name])
                for quantity, value in times.items():
                    getattr(turns[name], quantity).append(value)
            order.reverse()  # who is first changes: the machine may slow down with time
        for end in ends.values():
            end.send("stop")
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.terminate()
    return turns, failed


def _answer(connection: Connection) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = connection.recv()
    except EOFError:
        return {"error": "its process ended"}
    return answer


def _run(program: Callable[..., None], task: Any, connection: Connection, iters: int) -> None:
    try:
        program(task, Baton(connection, iters))
    except Finished:
        return
    except BaseException as error:  # whatever a library raises
        traceback.print_exc()
        connection.send({"error": f"{type(error).__name__}: {error}"})


def fastest(turns: Mapping[str, Turns], names: Sequence[str]) -> str:
    """Return which of some programs took the least time in the median of its turns."""
    return min(names, key=lambda name: statistics.median(turns[name].wall))


def ratios(turns: Mapping[str, Turns], name: str, other: str) -> list[float]:
    """Return by how much a program is faster than another, round by round.

    Not than the fastest of each round: the least of several times is that of the luckiest.
    """
    return [b / a for a, b in zip(turns[name].wall, turns[other].wall, strict=True)]


def medians(values: Sequence[float], count: int) -> list[float]:
    """Return the medians of so many equal parts of values, one after the other."""
    size = len(values) // count
    return [statistics.median(values[i * size : (i + 1) * size]) for i in range(count)]
