"""What suites of benchmarks measured of finished models, one file an evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compt.errors import WorkDirError
from compt.files import EXPORT, FORMAT, read_record, write_json
from compt.report.metrics import Metrics, as_json, read_metrics

EVALUATIONS = "evaluations"
"""The folder in a stage's that holds them."""
ADVICE = "Restore the file from a copy, or remove it and evaluate again: compt eval."


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model measured by one suite with one choice of options."""

    suite: str
    """Its short name."""
    options: Mapping[str, Any]
    """All that can change a metric, as JSON types, with the paths of the data."""
    metrics: Metrics
    """By 'data/name'."""
    weights: Mapping[str, str]
    """SHA-256 of the files that were evaluated, by path in the export."""
    tool: str = ""
    """The package that measured, '' for compt alone."""
    tool_version: str = ""
    seconds: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    """See :func:`compt.report.software.environment`."""

    @property
    def file_name(self) -> str:
        """The suite's name with what tells its options from others."""
        text = json.dumps(self.options, sort_keys=True)
        return (
            f"{self.suite.replace(':', '_')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        )

    def clashes_with(self, other: Evaluation) -> bool:
        """Return whether another of the suite has metrics of the same names by other options."""
        is_other = (self.suite, self.options) != (other.suite, other.options)
        shared = self.metrics.keys() & other.metrics.keys()
        return is_other and self.suite == other.suite and bool(shared)

    def is_outdated(self, files: Mapping[str, str]) -> bool:
        """Return whether a stage's export holds other weights by now.

        Args:
            files: SHA-256 by path in the stage's folder, as its record has them; empty in records
                of older versions, of which it is not known.
        """
        beginning = f"{EXPORT}/"
        exported = {
            name.removeprefix(beginning): digest
            for name, digest in files.items()
            if name.startswith(beginning)
        }
        return bool(exported) and exported != self.weights

    def write(self, folder: Path) -> Path:
        """Write it into the folder of a stage's evaluations, atomically, and return the path.

        Raises:
            TrainingError: the file cannot be written.
        """
        path = folder / self.file_name
        write_json(path, {"format": FORMAT, **as_json(self)})
        return path

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """Read an evaluation from JSON types.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another type.
        """
        return cls(
            suite=str(content["suite"]),
            options=dict(content["options"]),
            metrics=read_metrics(content["metrics"]),
            weights=dict(content["weights"]),
            tool=str(content.get("tool", "")),
            tool_version=str(content.get("tool_version", "")),
            seconds=float(content.get("seconds", 0.0)),
            environment=dict(content.get("environment") or {}),
        )


def read_evaluations(stage: Path) -> tuple[Evaluation, ...]:
    """Read what was measured of a stage, by suite and options; none where nothing was.

    Args:
        stage: its folder.

    Raises:
        WorkDirError: a file is damaged.
    """
    return read_folder(stage / EVALUATIONS)


def read_noting(
    stage: Path, files: Mapping[str, str]
) -> tuple[tuple[Evaluation, ...], tuple[str, ...]]:
    """Read what was measured of a stage, and say in sentences what is wrong with that.

    Args:
        stage: its folder.
        files: what the stage's record says of its files.
    """
    try:
        evaluations = read_evaluations(stage)
    except WorkDirError as error:
        return (), (f"{error.what} Its suites are not shown.",)
    outdated = [evaluation.suite for evaluation in evaluations if evaluation.is_outdated(files)]
    text = "was measured of other weights than the stage now has."
    return evaluations, tuple(f"{suite} {text}" for suite in outdated)


def read_folder(folder: Path) -> tuple[Evaluation, ...]:
    """Read all evaluations in a folder, by the names of their files.

    Raises:
        WorkDirError: a file is damaged.
    """
    files = sorted(folder.glob("*.json"))
    return tuple(read_record(file, Evaluation.from_json, ADVICE) for file in files)


def labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return what to call each evaluation beside the others.

    That is its suite, and where others of the suite have metrics of the same names, the options in
    which it differs from them.
    """
    return [
        _label(evaluation, list(filter(evaluation.clashes_with, evaluations)))
        for evaluation in evaluations
    ]


def _label(evaluation: Evaluation, clashing: Sequence[Evaluation]) -> str:
    own = {name: _brief(value) for name, value in evaluation.options.items()}
    others = [{name: _brief(e.options.get(name)) for name in own} for e in clashing]
    differing = [
        f"{name}={text}" for name, text in own.items() if any(o[name] != text for o in others)
    ]
    if own in others:  # they differ in what is left out of the brief texts
        differing.append(Path(evaluation.file_name).stem.rpartition("-")[2])
    return " ".join([evaluation.suite, *differing])


def _brief(value: Any, most: int = 24) -> str:
    """Return an option's value in a few letters, of a path the last part."""
    if isinstance(value, list):
        text = ",".join(map(_brief, value))
    else:
        is_path = isinstance(value, str) and value.startswith("/")
        text = Path(value).name if is_path else str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
