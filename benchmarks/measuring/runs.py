"""Runs of compt in work folders, several at a time; what is there already is read, what was
interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

import compt
from compt.errors import ComptError, DivergedError, WorkDirError
from compt.files import atomic
from compt.report.build import report
from compt.report.format import duration, plain_console
from compt.report.results import MemberResult
from compt.workdir import StageFolder, differences
from measuring.family import WAYS, Plan

MOST = 8
"""Most runs at a time, however many cores there are."""


_LEFT = threading.Event()
"""In a process of its own: the one that started it is gone."""


class OutOfTime(Exception):
    """The time given is over; what was trained is kept."""


@dataclass(frozen=True)
class Job:
    """One run: a config and where it is kept."""

    folder: Path
    config: Mapping[str, Any]
    alone: bool = False

    def run(self) -> str:
        """Train, or what is left of it; '' when done, else how training diverged."""
        if self.done:
            return ""
        resume = (self.folder / "chain.json").is_file()
        try:
            compt.train(
                deepcopy(dict(self.config)),
                work_dir=self.folder,
                resume=resume,
                individual=self.alone,
            )
        except DivergedError as error:
            return str(error)
        self._tidy()
        return ""

    def _tidy(self) -> None:
        """Keep no more than others start from: the weights of what was trained."""
        for member, path in zip(self.config["chain"], self.stages, strict=True):
            stage = StageFolder(path)
            shutil.rmtree(stage.export, ignore_errors=True)
            stage.grown.unlink(missing_ok=True)
            if member.get("iters") == 0:
                stage.weights.unlink(missing_ok=True)

    @property
    def stages(self) -> list[Path]:
        """Their folders; another chain can start from one that is finished."""
        return [
            self.folder / f"{i:02d}_{member['name']}"
            for i, member in enumerate(self.config["chain"], 1)
        ]

    @property
    def done(self) -> bool:
        """Whether all members are there."""
        return (self.folder / "chain.json").is_file() and not report([self.folder]).runs[
            0
        ].unfinished

    def members(self) -> tuple[MemberResult, ...]:
        """What every member cost and reached."""
        return report([self.folder]).runs[0].members


class Bench:
    """The runs of one plan.

    Args:
        plan: what is measured.
        root: folder of the runs.
        workers: runs at a time, each in a process of its own; 1 for none but this.
        minutes: after which to stop, and to go on another time; 0 for no limit.
    """

    def __init__(self, plan: Plan, root: Path, *, workers: int = 1, minutes: float = 0) -> None:
        self.plan, self.root = plan, (root / plan.name).absolute()
        self.deadline = time.time() + 60 * minutes if minutes else math.inf
        self.workers = workers
        self.console = plain_console()

    def say(self, text: str) -> None:
        """Print a line at once."""
        self.console.print(text, highlight=False)
        sys.stdout.flush()

    def alone(self, index: int, rate: float, seed: int) -> Job:
        """A member trained from scratch, in full."""
        folder = (
            self.root / "alone" / self.plan.members[index]["name"] / f"lr_{rate:g}" / f"seed_{seed}"
        )
        config = self._config([self.plan.member(index, rate, self.plan.iters)], seed)
        return Job(folder, {k: v for k, v in config.items() if k not in WAYS}, alone=True)

    def chain(
        self, folder: Path, chain: Sequence[Mapping[str, Any]], seed: int, **keys: Any
    ) -> Job:
        """A chain in a folder below the plan's; ``keys`` replace those that all runs share."""
        return Job(self.root / folder, {**self._config(chain, seed), **keys})

    def run(self, jobs: Sequence[Job]) -> list[str]:
        """Run all that are not done yet, and return for each '' or what went wrong.

        Raises:
            OutOfTime: the time given is over.
            WorkDirError: the folder has runs of another plan.
            ComptError: a config cannot be used.
        """
        self._claim()
        due = [job for job in jobs if not job.done]
        failed: dict[Path, str] = {}
        with self._executor() as run:
            for job, why in run(due):
                failed[job.folder] = why
                text = why.partition("\n")[0] or self.describe(job.members()[-1])
                self.say(f"  {job.folder.relative_to(self.root)}: {text}")
        if time.time() >= self.deadline:
            raise OutOfTime
        return [failed.get(job.folder, "") for job in jobs]

    def _claim(self) -> None:
        """Make the folder this plan's: runs that are there already are read, so they must be the
        same.
        """
        path, plan = self.root / "plan.json", self.plan
        base = {key: value for key, value in plan.base.items() if key not in WAYS}
        members = {member["name"]: member["model"] for member in plan.members}
        ours = json.loads(json.dumps({**base, "iters": plan.iters, "members": members}))
        known = json.loads(path.read_text()) if path.is_file() else ours
        both = {**known, "members": {**ours["members"], **known["members"]}}
        ours["members"] = {**known["members"], **ours["members"]}
        if changed := differences(both, ours):
            raise WorkDirError(
                "The folder has runs of another plan.\n"
                + "\n".join(f"  {line}" for line in changed),
                where=str(self.root),
                do="Choose another with --work-dir.",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write_text(json.dumps(ours, indent=1) + "\n")

    @contextmanager
    def _executor(self) -> Iterator[Callable[[Sequence[Job]], Iterator[tuple[Job, str]]]]:
        """What runs jobs, here or in other processes, and tells of each as it ends.

        How many threads a run has does not depend on how many jobs are left: it would show in the
        last digits.
        """
        if self.workers <= 1:
            with _until(self.deadline):
                yield lambda jobs: ((job, _guarded(job, self.deadline)) for job in jobs)
            return
        threads = max(1, torch.get_num_threads() // self.workers)
        with ProcessPoolExecutor(
            self.workers, get_context("spawn"), _prepare, (threads, self.deadline)
        ) as pool:

            def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
                running = {pool.submit(_guarded, job, self.deadline): job for job in jobs}
                return ((running[future], future.result()) for future in as_completed(running))

            yield run

    def _config(self, chain: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
        return {
            **self.plan.base,
            "chain": list(chain),
            "seed": seed,
            "individual": {"iters": self.plan.iters},
        }

    def figure(self, member: MemberResult) -> float:
        """The held-out figure that is compared."""
        metric = member.metrics.get(self.plan.metric or member.main_metric or "")
        if metric is None:
            known = ", ".join(member.metrics) or "none"
            raise compt.ConfigError(
                f"'{self.plan.metric}' is not measured.", where="metric", do=f"One of: {known}."
            )
        return math.nan if metric["value"] is None else metric["value"]

    def sign(self, member: MemberResult) -> int:
        """1 where higher figures are better, -1 where lower are."""
        return (
            1
            if member.metrics[self.plan.metric or member.main_metric or ""]["higher_is_better"]
            else -1
        )

    def quality(self, member: MemberResult) -> float:
        """The figure as a number that is to rise."""
        return self.sign(member) * self.figure(member)

    def describe(self, member: MemberResult) -> str:
        """The figure and the time it took."""
        return f"{self.figure(member):.4f} ({duration(member.seconds)})"


def digest(value: Any) -> str:
    """A short name for a config, for folders."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def default_workers() -> int:
    """One run a core; one in all where there is a GPU."""
    return 1 if torch.cuda.is_available() else min(MOST, torch.get_num_threads())


def _prepare(threads: int, deadline: float) -> None:
    torch.set_num_threads(threads)
    warnings.filterwarnings(
        "ignore", message="Multi-processing start method"
    )  # mmengine sets it for its own workers
    _arm(deadline)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Stop this process once the one that started it is gone, or its runs would go on unseen."""
    if (parent := parent_process()) is not None:
        parent.join()
        _LEFT.set()
        os.kill(os.getpid(), signal.SIGTERM)  # a run that is under way saves


def _guarded(job: Job, deadline: float) -> str:
    """Run a job in whatever process, unless the time is over; a stage that is stopped by it ends
    the job.
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
        if _LEFT.is_set():
            os._exit(1)


def _arm(deadline: float) -> Callable[[], None]:
    """Ask this process to stop from the deadline on, as the system would; call what is returned to
    end it.

    Only a stage in training hears it, which saves and ends; so it is asked again and again. To
    raise here instead would break into whatever runs, which may take it for a failure of its own.
    """
    if math.isinf(deadline):
        return lambda: None
    done = threading.Event()

    def outside(number: int, _: Any) -> None:
        if _LEFT.is_set() or time.time() < deadline:  # it was not us
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
def _until(deadline: float) -> Iterator[None]:
    """Stop what trains inside at the deadline."""
    before = signal.getsignal(signal.SIGTERM)
    disarm = _arm(deadline)
    try:
        yield
    finally:
        disarm()
        signal.signal(signal.SIGTERM, before)
