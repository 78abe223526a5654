"""Evaluate models with suites, each once for the same options and weights."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compt.errors import ComptError, ConfigError
from compt.evaluation.options import complete, version
from compt.evaluation.subjects import Subject
from compt.files import check_recorded
from compt.interfaces import Suite
from compt.interfaces.paradigm import Metric
from compt.registry import SUITES
from compt.registry.loading import first_line, raised_at
from compt.registry.registry import short_name
from compt.report.evaluations import Evaluation, read_folder
from compt.report.format import duration
from compt.report.metrics import MetricValue
from compt.report.software import environment

Say = Callable[[str], None]
Status = Literal["evaluated", "kept", "left out", "failed"]


@dataclass(frozen=True)
class Task:
    """A suite with its options, ready to evaluate."""

    name: str
    """The suite's, short."""
    suite: Suite
    options: Mapping[str, Any]
    """As they are recorded."""

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Task:
        """Build a suite.

        Raises:
            ComptError: there is no such suite or option, or what it needs is not there.
        """
        kind = SUITES.get(name)
        try:
            suite: Suite = SUITES.build({"type": name, **options})
        except ConfigError as error:
            do = error.do or "compt eval --list shows the options of all suites."
            raise ConfigError(error.what, where=error.where, do=do) from error
        return cls(short_name(name), suite, complete(kind, options))

    def is_done_by(self, evaluation: Evaluation) -> bool:
        """Return whether an evaluation is of this suite with these options."""
        return (evaluation.suite, evaluation.options) == (self.name, self.options)


@dataclass(frozen=True)
class Result:
    """What came of one model and one suite."""

    subject: Subject
    task: Task
    status: Status
    reason: str = ""
    """Why it was left out or failed."""
    evaluation: Evaluation | None = None
    is_replaced: bool = False
    """Whether it took the place of one of other weights."""

    @property
    def file(self) -> Path | None:
        """Where the evaluation is, None where there is none."""
        if self.evaluation is None:
            return None
        return self.subject.results / self.evaluation.file_name


def repeated(subjects: Sequence[Subject]) -> list[Task]:
    """Return what any of the models was evaluated with before, to do the same with all.

    Raises:
        ConfigError: none was evaluated, or one by programs that the user has to name.
    """
    tasks: list[Task] = []
    for evaluation in _recorded(subjects):
        _check_repeatable(evaluation)
        if not any(task.is_done_by(evaluation) for task in tasks):
            tasks.append(Task.of(evaluation.suite, evaluation.options))
    if not tasks:
        fitting = ", ".join(fitting_suites(subjects)) or "none"
        raise ConfigError(
            "Nothing was evaluated before that could be repeated.",
            do=f"Name a suite with --suite; of those that are installed, these read the models: "
            f"{fitting}. compt eval --list shows their options.",
        )
    return tasks


def _check_repeatable(evaluation: Evaluation) -> None:
    """Raise ConfigError where to repeat an evaluation would run what a work folder names."""
    kind: type[Suite] = SUITES.get(evaluation.suite)
    for option in sorted(kind.runs_code):
        if named := evaluation.options.get(option):
            raise ConfigError(
                f"It was evaluated with {evaluation.suite} and {option}={named}, which may hold "
                "programs; they are not run on a work folder's word.",
                where=option,
                do=f"Where you trust them, say so: --suite {evaluation.suite} --option "
                f"{option}={named}, with the other options.",
            )


def _recorded(subjects: Sequence[Subject]) -> Iterable[Evaluation]:
    for subject in subjects:
        yield from read_folder(subject.results)


def fitting_suites(subjects: Sequence[Subject]) -> list[str]:
    """Return the names of the suites that read any of the models, whatever options they need."""
    names = []
    for name in SUITES.names():
        try:
            kind: type[Suite] = SUITES.get(name)
        except ComptError:  # it is broken: compt check says why
            continue
        if any(kind.recognises(subject.export) for subject in subjects):
            names.append(name)
    return names


def evaluate_all(
    subjects: Sequence[Subject],
    tasks: Sequence[Task],
    *,
    force: bool = False,
    say: Say = lambda line: None,
) -> list[Result]:
    """Evaluate every model with every suite, and go on with the next where one fails.

    Args:
        subjects: the models.
        tasks: the suites.
        force: whether to measure again what was measured with the same options and weights.
        say: called with a line before and after each model that is measured.

    Raises:
        ConfigError: no suite reads any of the models.
    """
    pairs = [(task, subject) for task in tasks for subject in subjects]
    if not any(task.suite.recognises(subject.export) for task, subject in pairs):
        _refuse(subjects, tasks)
    weights = {subject: _weights(subject) for subject in subjects}
    jobs = [_Job(subject, task, weights[subject], force) for task, subject in pairs]
    waiting = [job for job in jobs if job.result is None]
    for number, job in enumerate(waiting, start=1):
        head = f"[{number}/{len(waiting)}] {job.subject.name}: {job.task.name}"
        say(f"{head} ...")
        result = job.run()
        if result.evaluation is None:
            say(f"{head} failed: {result.reason}")
        else:
            say(f"{head} took {duration(result.evaluation.seconds)}")
    return [job.result for job in jobs if job.result is not None]


def _weights(subject: Subject) -> Mapping[str, str] | str:
    """Return the hashes of a model's files, or why it cannot be used."""
    try:
        check_recorded(subject.export)
        return subject.weights()
    except (ComptError, OSError) as error:
        return _reason(error)


class _Job:
    """One model to measure with one suite, or the reason why not.

    Args:
        weights: hashes of the model's files, or why it cannot be used.
        force: whether to measure again what was measured.
    """

    def __init__(
        self, subject: Subject, task: Task, weights: Mapping[str, str] | str, force: bool
    ) -> None:
        self.subject, self.task, self.weights = subject, task, weights
        self.result: Result | None = None
        self._earlier: list[Evaluation] = []
        if not task.suite.recognises(subject.export):
            self._end("left out", "the suite does not read this format")
        elif isinstance(weights, str):
            self._end("failed", weights)
        else:
            self._look_back(weights, force)

    def _look_back(self, weights: Mapping[str, str], force: bool) -> None:
        try:
            recorded = read_folder(self.subject.results)
        except ComptError as error:
            self._end("failed", _reason(error))
            return
        self._earlier = [e for e in recorded if self.task.is_done_by(e)]
        same = [evaluation for evaluation in self._earlier if evaluation.weights == weights]
        if same and not force:
            self._end("kept", evaluation=same[0])

    def _end(
        self, status: Status, reason: str = "", evaluation: Evaluation | None = None
    ) -> Result:
        outdated = [e for e in self._earlier if e.weights != self.weights]
        is_replaced = status == "evaluated" and bool(outdated)
        self.result = Result(self.subject, self.task, status, reason, evaluation, is_replaced)
        return self.result

    def run(self) -> Result:
        """Measure, and write what was measured in the place of what was before."""
        assert not isinstance(self.weights, str)
        try:
            evaluation = _measure(self.task, self.subject, self.weights)
            path = evaluation.write(self.subject.results)
            for old in self._earlier:
                if old.file_name != path.name:
                    (self.subject.results / old.file_name).unlink(missing_ok=True)
        except Exception as error:  # each tool has its own
            return self._end("failed", _reason(error))
        return self._end("evaluated", evaluation=evaluation)


def _refuse(subjects: Sequence[Subject], tasks: Sequence[Task]) -> None:
    names = " and ".join(f"'{task.name}'" for task in tasks)
    exports = ", ".join(str(subject.export) for subject in subjects[:3])
    fitting = ", ".join(fitting_suites(subjects)) or "none"
    raise ConfigError(
        f"The suite {names} reads none of the models.",
        where=exports + (", ..." if len(subjects) > 3 else ""),
        do=f"These suites do: {fitting}.",
    )


def _measure(task: Task, subject: Subject, weights: Mapping[str, str]) -> Evaluation:
    start = time.monotonic()
    # Standard output is the command's own, which scripts parse as JSON.
    with contextlib.redirect_stdout(sys.stderr):
        metrics = dict(task.suite.evaluate(subject.export))
    seconds = time.monotonic() - start
    if not metrics:
        raise ConfigError("The suite measured nothing.", do="Check its options.")
    return Evaluation(
        suite=task.name,
        options=task.options,
        metrics={name: _value(metric) for name, metric in metrics.items()},
        weights=weights,
        tool=task.suite.tool,
        tool_version=version(task.suite.tool),
        seconds=seconds,
        environment=environment(),
    )


def _value(metric: Metric) -> MetricValue:
    value = metric.value if math.isfinite(metric.value) else None
    return MetricValue(value, metric.chance, metric.higher_is_better, metric.unit)


def _reason(error: Exception) -> str:
    if isinstance(error, ComptError):
        return error.one_line
    text, where = first_line(error), raised_at(error)
    if "\nOriginal Traceback" in str(error):  # of a process that loads data
        text = str(error).strip().splitlines()[-1]
    return text + (f" ({where})" if where else "")
