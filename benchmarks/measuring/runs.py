"""Run compt in work folders, several at a time.

What is there already is read, what was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from compt.config.resuming import changes
from compt.errors import ConfigError, DivergedError, WorkDirError
from compt.report.format import duration, plain_console
from compt.report.results import MemberResult
from compt.writing import atomic
from measuring.family import PRIVATE, WAYS, Family
from measuring.job import Job
from measuring.processes import prepare_worker, run_job, stopped_at
from measuring.records import Known, Records

SAME = 1e-6
"""Relative difference of a figure that two machines may have."""
MOST = 8
"""Most runs at a time, however many cores there are."""


class OutOfTime(Exception):
    """Raised when the time is over, with what was trained kept."""


class Bench:
    """The runs of one family.

    Args:
        family: what is measured.
        root: folder of the runs.
        workers: runs at a time, each in a process of its own; 1 for none but this.
        minutes: after which to stop, and to go on another time; 0 for no limit.
        records: file of what finished runs came to, which is read and written; None for none.

    Raises:
        WorkDirError: a line of the records cannot be read.
    """

    def __init__(
        self,
        family: Family,
        root: Path,
        *,
        workers: int = 1,
        minutes: float = 0,
        records: Path | None = None,
    ) -> None:
        self.family, self.root = family, (root / family.name).absolute()
        self.records = Records(records)
        self.deadline = time.time() + 60 * minutes if minutes else math.inf
        self.workers = workers
        self.console = plain_console()

    def say(self, text: str) -> None:
        """Print a line at once."""
        self.console.print(text, highlight=False)
        sys.stdout.flush()

    def alone(self, index: int, iters: int, rate: float, seed: int, **keys: Any) -> Job:
        """Return the run of a member trained from scratch.

        Args:
            index: of the member.
            iters: its length.
            rate: its peak learning rate.
            seed: of order and weights.
            keys: of a config, which replace those that all runs share.
        """
        length = f"{iters}_lr_{rate:.3g}" + (f"_{digest(keys)}" if keys else "")
        name = self.family.members[index]["name"]
        folder = self.root / "alone" / name / length / f"seed_{seed}"
        config = self._config([self.family.member(index, rate, iters)], iters, seed)
        # Only in a chain, be it of one, does a stage keep its plateau, or what its optimizer
        # remembers, for others to grow from.
        is_source = not keys.keys().isdisjoint(("trunk", "checkpoint"))
        return self._job(folder, {**config, **keys}, alone=not is_source)

    def source(
        self,
        index: int,
        iters: int,
        rate: float,
        seed: int,
        ways: Mapping[str, Any] | None = None,
    ) -> Job:
        """Return the run of a member from scratch that another can be grown from in some ways.

        That is the run alone, unless the ways begin at its plateau, or need what its optimizer
        remembers, or have keys that hold for all members.

        Args:
            index: of the member.
            iters: its length.
            rate: its peak learning rate.
            seed: of order and weights.
            ways: keys in the place of the family's own.
        """
        ways = self.family.first_ways if ways is None else ways
        keys = {key: value for key, value in ways.items() if key not in WAYS}
        return self.alone(index, iters, rate, seed, **keys, **self._kept_for_next(ways))

    def _kept_for_next(self, ways: Mapping[str, Any]) -> dict[str, Any]:
        """Return what makes a stage keep its plateau, and what its optimizer remembers.

        As these ways need it, or any that the next hop may choose.
        """
        kept: dict[str, Any] = {}
        for way in (ways, *self.family.choices):
            if way.get("trunk"):
                kept["trunk"] = True
            if way.get("grown", {}).get("optimizer_state"):
                checkpoint = self.family.base.get("checkpoint", {})
                kept["checkpoint"] = {**checkpoint, "optimizer": True}
        return kept

    def grown(
        self,
        index: int,
        source: Job,
        iters: int,
        rate: float,
        seed: int,
        ways: Mapping[str, Any] | None = None,
    ) -> Job:
        """Return the run of a member grown from the last member of another run.

        Args:
            index: of the member; that of its source is one less.
            source: the run that it grows from.
            iters: length of its stage.
            rate: its peak learning rate.
            seed: of order and new weights.
            ways: keys in the place of the family's own, such as ``grower``.
        """
        family = self.family
        ways = family.ways if ways is None else ways
        name = family.members[index]["name"]
        kept = self._kept_for_next(ways)
        told_apart: list[Any] = [ways, self._name(source.folder)]
        if "trunk" in kept and not ways.get("trunk"):  # kept for what others may choose
            told_apart.append({"trunk": True})
        origin = digest(told_apart)
        length = f"{iters}_lr_{rate:.3g}_from_{origin}"
        folder = self.root / "grown" / name / length / f"seed_{seed}"
        first = {**family.member(index - 1, rate, 0), "init": str(source.stages[-1])}
        if "trunk" in kept:  # from a plateau that the source has kept
            first["trunk"] = bool(ways.get("trunk") and source.config.get("trunk"))
        stages = [first, family.member(index, rate, iters)]
        config = {**self._config(stages, iters, seed), **ways, **kept}
        return self._job(folder, config, source=source)

    def _job(self, folder: Path, config: Mapping[str, Any], **options: Any) -> Job:
        known = self.records.find(self._name(folder))
        return Job(folder, config, known=known, **options)

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def run(self, jobs: Sequence[Job], *, diverging: bool = True) -> None:
        """Run all that are not done yet.

        Args:
            jobs: in the order to begin them.
            diverging: whether a run may diverge, which is then noted in its folder.

        Raises:
            OutOfTime: the time given is over.
            WorkDirError: the folder has runs of another family.
            DivergedError: a run diverged that must not.
            ComptError: a config cannot be used.
        """
        self._claim()
        try:
            self._train([job for job in jobs if not job.done])
        finally:
            self._note(jobs)
        failures = [job.diverged for job in jobs if job.diverged]
        if failures and not diverging:
            raise DivergedError(failures[0])

    def _train(self, jobs: Sequence[Job]) -> None:
        """Train in their folders what is not there, and before it what it grows from.

        Raises:
            OutOfTime: the time given is over.
        """
        due = {job.folder: job for job in jobs if not (job.diverged or job.has_weights)}
        if sources := [job.source for job in due.values() if job.source is not None]:
            self._train(sources)
        with self._executor() as run:
            for job, failure in run(list(due.values())):
                text = failure.partition("\n")[0] or self.describe(job.own_result)
                self.say(f"  {self._name(job.folder)}: {text}{self._differing(job)}")
        if time.time() >= self.deadline:
            raise OutOfTime

    def _differing(self, job: Job) -> str:
        """Say so where a run that another machine had made comes to something else here."""
        if job.known is None or job.known.result is None or not job.has_weights:
            return ""
        before, now = self.value(job.known.result), self.value(job.own_result)
        return (
            "" if math.isclose(before, now, rel_tol=SAME) else f", where the records have {before}"
        )

    def _note(self, jobs: Sequence[Job]) -> None:
        """Keep what runs came to for other machines."""
        for job in jobs:
            name = self._name(job.folder)
            if self.records.find(name) is None and (job.diverged or job.has_weights):
                result = None if job.diverged else job.own_result
                self.records.add(name, Known(result, job.diverged))
        self.records.write()

    def _claim(self) -> None:
        """Make the folder this family's.

        Runs that are there already are read, so they must be the same; members that either has
        alone do no harm, and a run's length is in the name of its folder.

        Raises:
            WorkDirError: the folder has runs of another family.
        """
        path, ours = self.root / "family.json", self._own_family()
        if self.records.family is not None:
            where, do = str(self.records.path), "Choose another file with --records."
            ours = _agreed(ours, self.records.family, where, do)
        if path.is_file():
            do = "Choose another with --work-dir."
            ours = _agreed(ours, json.loads(path.read_text()), str(self.root), do)
        self.records.family = ours
        self.root.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write_text(json.dumps(ours, indent=1) + "\n")

    def _own_family(self) -> dict[str, Any]:
        """Return what all runs of the family share, and its members, as JSON types."""
        members = {member["name"]: member["model"] for member in self.family.members}
        family: dict[str, Any] = json.loads(
            json.dumps({**self.family.alone_base, "members": members})
        )
        return family

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

    def _config(self, chain: Sequence[Mapping[str, Any]], iters: int, seed: int) -> dict[str, Any]:
        """Return a config that says nothing yet of how members are grown."""
        return {
            **self.family.alone_base,
            "chain": list(chain),
            "seed": seed,
            "individual": {"iters": iters},
        }

    def metric(self, member: MemberResult) -> str:
        """Return the name of the held-out metric that is compared."""
        return self.family.metric or member.record.main_metric or ""

    def value(self, member: MemberResult) -> float:
        """Return the metric's value, NaN where it is not finite.

        Raises:
            ConfigError: the metric is not measured.
        """
        metrics = member.record.metrics
        metric = metrics.get(self.metric(member))
        if metric is None:
            known = ", ".join(metrics) or "none"
            raise ConfigError(
                f"'{self.metric(member)}' is not measured.", where="metric", do=f"One of: {known}."
            )
        return math.nan if metric.value is None else metric.value

    def sign(self, member: MemberResult) -> int:
        """Return 1 where higher values are better, -1 where lower are."""
        return member.record.metrics[self.metric(member)].sign

    def quality(self, member: MemberResult) -> float:
        """Return the metric as a number that is to rise."""
        return self.sign(member) * self.value(member)

    def quality_of(self, job: Job) -> float:
        """Return the quality that a run ended with, -inf where it diverged."""
        return -math.inf if job.diverged else self.quality(job.result)

    def value_of(self, job: Job) -> float:
        """Return the metric that a run ended with, NaN where it diverged."""
        return math.nan if job.diverged else self.value(job.result)

    def describe(self, member: MemberResult) -> str:
        """Return the metric and the time that the member took."""
        return f"{self.value(member):.4f} ({duration(member.record.seconds)})"


def _agreed(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, do: str
) -> dict[str, Any]:
    """Return a family with the members of another one, from which it must not differ otherwise.

    Raises:
        WorkDirError: it does.
    """
    theirs = {key: value for key, value in theirs.items() if not key.startswith(PRIVATE)}
    of_both = {**ours["members"], **theirs["members"]}
    agreed = {**ours, "members": {**theirs["members"], **ours["members"]}}
    if changed := changes({**theirs, "members": of_both}, agreed):
        lines = "\n".join(f"  {change}" for change in changed)
        raise WorkDirError(f"There are runs of another family.\n{lines}", where=where, do=do)
    return agreed


def digest(value: Any) -> str:
    """Return a short name for a config, for folders."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def default_workers() -> int:
    """Return how many runs to make at a time, one a core, one in all where there is a GPU."""
    return 1 if torch.cuda.is_available() else min(MOST, torch.get_num_threads())
