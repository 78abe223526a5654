"""Evaluate the members of chains, as `compt eval` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compt.errors import ConfigError
from compt.evaluation.run import Result, Say, Task, evaluate_all, repeated
from compt.evaluation.subjects import find
from compt.report.metrics import MetricValue


@dataclass(frozen=True)
class Evaluated:
    """What came of an evaluation of several models."""

    results: tuple[Result, ...]
    """One for each model and suite, of those that were left out or failed too, with the reason."""
    unfinished: tuple[str, ...] = ()
    """Members whose stage is not finished, so that there is nothing to measure yet."""

    @property
    def metrics(self) -> dict[str, dict[str, MetricValue]]:
        """What was measured, by model and by 'data/name'."""
        measured: dict[str, dict[str, MetricValue]] = {}
        for result in self.results:
            if result.evaluation is not None:
                metrics = measured.setdefault(result.subject.name, {})
                metrics.update(result.evaluation.metrics)
        return measured


def evaluate(
    paths: str | Path | Sequence[str | Path],
    suite: str | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    force: bool = False,
    say: Say = print,
) -> Evaluated:
    """Measure finished models with a suite of benchmarks, and keep what was measured.

    The metrics are written beside each stage, where reports find them. What was measured with the
    same options and weights is not measured again. Where one model fails, the next is measured.

    Args:
        paths: work folders, of which every finished stage counts, folders of stages, and exports;
            one or several.
        suite: its name, or ``dict(type=name, **options)``; None repeats all that the models were
            measured with before.
        out: folder for the results; by default they are in each stage's, or beside the export.
        force: whether to measure again what was measured with the same options and weights.
        say: called with a line before and after each model that is measured.

    Raises:
        ConfigError: there are no such models, suite or options, or the suite reads none of them.
        PluginError: what the suite needs is not installed.
        WorkDirError: a work folder is damaged.
    """
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    if not named:
        raise ConfigError("There is nothing to evaluate.", do="Name work folders or exports.")
    folder = None if out is None else Path(out).expanduser()
    subjects = find([Path(path).expanduser() for path in named], folder)
    tasks = repeated(subjects.models) if suite is None else [_task(suite)]
    results = evaluate_all(subjects.models, tasks, force=force, say=say)
    return Evaluated(tuple(results), subjects.unfinished)


def _task(suite: str | Mapping[str, Any]) -> Task:
    if isinstance(suite, str):
        return Task.of(suite, {})
    options = dict(suite)
    if "type" not in options:
        raise ConfigError(
            f"{suite!r} is not a dict(type=..., ...) that names a suite.",
            do="compt eval --list shows the suites and their options.",
        )
    return Task.of(options.pop("type"), options)
