"""Run compt in work folders, several at a time.

What is there already is read, what was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import compt
from compt.config.resuming import changes
from compt.errors import DivergedError, WorkDirError
from compt.files import STATE, atomic, stage_name
from compt.report.build import report
from compt.report.format import duration, plain_console
from compt.report.results import MemberResult
from compt.workdir import StageFolder
from measuring.family import WAYS, Plan
from measuring.processes import prepare_worker, run_job, stopped_at

MOST = 8
"""Most runs at a time, however many cores there are."""


class OutOfTime(Exception):
    """Raised when the time is over, with what was trained kept."""


@dataclass(frozen=True)
class Job:
    """One run, as a config and where it is kept."""

    folder: Path
    config: Mapping[str, Any]
    alone: bool = False

    def run(self) -> str:
        """Train what is not done yet, and return how training diverged, '' where it did not."""
        if self.done:
            return ""
        resume = (self.folder / STATE).is_file()
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
        """Keep no more than others start from, which is the weights of what was trained."""
        for member, path in zip(self.config["chain"], self.stages, strict=True):
            stage = StageFolder(path)
            shutil.rmtree(stage.export, ignore_errors=True)
            stage.grown.unlink(missing_ok=True)
            if member.get("iters") == 0:
                stage.weights.unlink(missing_ok=True)

    @property
    def stages(self) -> list[Path]:
        """Their folders, from one of which another chain can start once it is finished."""
        names = [member["name"] for member in self.config["chain"]]
        return [self.folder / stage_name(i, name) for i, name in enumerate(names)]

    @property
    def done(self) -> bool:
        """Whether all members are there."""
        begun = (self.folder / STATE).is_file()
        return begun and not report([self.folder]).runs[0].unfinished

    def members(self) -> tuple[MemberResult, ...]:
        """Return what every member cost and reached."""
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
        """Return the run of a member trained from scratch, in full."""
        name = self.plan.members[index]["name"]
        folder = self.root / "alone" / name / f"lr_{rate:g}" / f"seed_{seed}"
        config = self._config([self.plan.member(index, rate, self.plan.iters)], seed)
        return Job(folder, {k: v for k, v in config.items() if k not in WAYS}, alone=True)

    def chain(
        self, folder: Path, chain: Sequence[Mapping[str, Any]], seed: int, **keys: Any
    ) -> Job:
        """Return the run of a chain in a folder below the plan's.

        ``keys`` replace those that all runs share.
        """
        return Job(self.root / folder, {**self._config(chain, seed), **keys})

    def run(self, jobs: Sequence[Job]) -> list[str]:
        """Run all that are not done yet, and return for each what went wrong, '' if nothing did.

        Raises:
            OutOfTime: the time given is over.
            WorkDirError: the folder has runs of another plan.
            ComptError: a config cannot be used.
        """
        self._claim()
        due = [job for job in jobs if not job.done]
        failures: dict[Path, str] = {}
        with self._executor() as run:
            for job, failure in run(due):
                failures[job.folder] = failure
                text = failure.partition("\n")[0] or self.describe(job.members()[-1])
                self.say(f"  {job.folder.relative_to(self.root)}: {text}")
        if time.time() >= self.deadline:
            raise OutOfTime
        return [failures.get(job.folder, "") for job in jobs]

    def _claim(self) -> None:
        """Make the folder this plan's.

        Runs that are there already are read, so they must be the same; members that either has
        alone do no harm.

        Raises:
            WorkDirError: the folder has runs of another plan.
        """
        path, plan = self.root / "plan.json", self.plan
        base = {key: value for key, value in plan.base.items() if key not in WAYS}
        members = {member["name"]: member["model"] for member in plan.members}
        ours = json.loads(json.dumps({**base, "iters": plan.iters, "members": members}))
        known = json.loads(path.read_text()) if path.is_file() else ours
        known_with_ours = {**known, "members": {**ours["members"], **known["members"]}}
        ours["members"] = {**known["members"], **ours["members"]}
        if changed := changes(known_with_ours, ours):
            lines = "\n".join(f"  {change}" for change in changed)
            raise WorkDirError(
                f"The folder has runs of another plan.\n{lines}",
                where=str(self.root),
                do="Choose another with --work-dir.",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write_text(json.dumps(ours, indent=1) + "\n")

    @contextmanager
    def _executor(self) -> Iterator[Callable[[Sequence[Job]], Iterator[tuple[Job, str]]]]:
        """Yield what runs jobs, here or in other processes, and tells of each as it ends.

        How many threads a run has does not depend on how many jobs are left: it would show in the
        last digits.
        """
        if self.workers <= 1:
            with stopped_at(self.deadline):
                yield lambda jobs: ((job, run_job(job, self.deadline)) for job in jobs)
            return
        threads = max(1, torch.get_num_threads() // self.workers)
        with ProcessPoolExecutor(
            self.workers, get_context("spawn"), prepare_worker, (threads, self.deadline)
        ) as pool:

            def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
                running = {pool.submit(run_job, job, self.deadline): job for job in jobs}
                return ((running[future], future.result()) for future in as_completed(running))

            yield run

    def _config(self, chain: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
        return {
            **self.plan.base,
            "chain": list(chain),
            "seed": seed,
            "individual": {"iters": self.plan.iters},
        }

    def metric(self, member: MemberResult) -> str:
        """Return the name of the held-out metric that is compared."""
        return self.plan.metric or member.record.main_metric or ""

    def value(self, member: MemberResult) -> float:
        """Return the metric's value, NaN where it is not finite.

        Raises:
            ConfigError: the metric is not measured.
        """
        metrics = member.record.metrics
        metric = metrics.get(self.metric(member))
        if metric is None:
            known = ", ".join(metrics) or "none"
            raise compt.ConfigError(
                f"'{self.plan.metric}' is not measured.", where="metric", do=f"One of: {known}."
            )
        return math.nan if metric.value is None else metric.value

    def sign(self, member: MemberResult) -> int:
        """Return 1 where higher values are better, -1 where lower are."""
        return member.record.metrics[self.metric(member)].sign

    def quality(self, member: MemberResult) -> float:
        """Return the metric as a number that is to rise."""
        return self.sign(member) * self.value(member)

    def describe(self, member: MemberResult) -> str:
        """Return the metric and the time that the member took."""
        return f"{self.value(member):.4f} ({duration(member.record.seconds)})"


def digest(value: Any) -> str:
    """Return a short name for a config, for folders."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def default_workers() -> int:
    """Return how many runs to make at a time, one a core, one in all where there is a GPU."""
    return 1 if torch.cuda.is_available() else min(MOST, torch.get_num_threads())
