"""The record of how a stage got its first weights, growth.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compt.files import FORMAT, read_record, sealed, write_json

ADVICE = "Restore the file from a copy, or remove it: --resume then makes it again."


@dataclass(frozen=True)
class LearnedGrowth:
    """What a grower that learns asked of its objective, and the loss it had for it."""

    calls: int
    first_loss: float
    """Mean of the first tenth of the calls."""
    last_loss: float
    """Mean of the last tenth."""


@dataclass(frozen=True)
class GrowthReport:
    """What a grower made of a source and a target, without the tensors."""

    grower: str
    function_preserving: bool
    reason: str = ""
    """Why the function was not kept; where it was, '' or that it was not measured."""
    error: float | None = None
    """Largest relative difference of the outputs, None where it was not measured."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many tensors of the target have each status."""
    params: Mapping[str, str] = field(default_factory=dict)
    """The status of every tensor of the target, by name."""
    dropped: tuple[str, ...] = ()
    """Tensors of the source that were not used."""
    reset: tuple[str, ...] = ()
    """Tensors of the target that the paradigm set anew, as they must not be inherited."""
    objective: LearnedGrowth | None = None
    """None for a grower that did not ask for the loss."""
    grown_from: str = ""
    """Which point of its source it grew from, '' for the delivered weights."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the grower reports, as the table of a probe."""
    held_whole: str = ""
    """Why a large model was in memory as a whole, '' for a small one and one that was not."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        content = asdict(self)
        if self.objective is None:
            del content["objective"]
        for name in ("reset", "grown_from", "details", "held_whole"):
            if not content[name]:
                del content[name]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> GrowthReport:
        """Read a report from JSON types, or from ``Growth.to_dict()`` and the grower's name."""
        objective = content.get("objective")
        return cls(
            grower=str(content.get("grower", "")),
            function_preserving=bool(content["function_preserving"]),
            grown_from=content.get("grown_from", ""),
            held_whole=content.get("held_whole", ""),
            reason=content.get("reason", ""),
            error=content.get("error"),
            counts=dict(content.get("counts", {})),
            params=dict(content.get("params", {})),
            dropped=tuple(content.get("dropped", ())),
            reset=tuple(content.get("reset", ())),
            objective=None if objective is None else LearnedGrowth(**objective),
            details=dict(content.get("details", {})),
        )

    @property
    def probed(self) -> Sequence[tuple[str, float, float]]:
        """The growers that a probe tried, with first and held-out loss, the least of those first.

        A loss that is no number is inf.
        """
        rows = (
            (tried["grower"], *(_loss(tried[key]) for key in ("first_loss", "held_out_loss")))
            for tried in self.details.get("probe", ())
        )
        return sorted(rows, key=lambda row: row[2])


def _loss(value: float | None) -> float:
    return math.inf if value is None else value


@dataclass(frozen=True)
class GrowthRecord:
    """The content of growth.json, which is written once a stage has its first weights."""

    report: GrowthReport | None
    """None where nothing was grown."""
    seconds: float = 0.0
    """How long it took to make the weights."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of what was written, by name."""

    @property
    def calls(self) -> int:
        """How often the grower asked for the loss, each time at the cost of a training step."""
        learned = self.report and self.report.objective
        return learned.calls if learned else 0

    def write(self, path: Path) -> None:
        """Write growth.json, atomically.

        Raises:
            TrainingError: the file cannot be written.
        """
        growth = None if self.report is None else self.report.to_json()
        content = {"growth": growth, "seconds": self.seconds, "files": dict(self.files)}
        write_json(path, sealed({"format": FORMAT, **content}))

    @classmethod
    def read(cls, path: Path, do: str = ADVICE) -> GrowthRecord:
        """Read growth.json.

        Args:
            path: of the file.
            do: the advice that errors give; the default's holds while the stage is unfinished.

        Raises:
            WorkDirError: the file is damaged or of another format.
        """
        return read_record(path, cls._from_json, do)

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> GrowthRecord:
        growth = content["growth"]
        report = None if growth is None else GrowthReport.from_json(growth)
        return cls(report, float(content.get("seconds", 0.0)), dict(content.get("files") or {}))
