"""What a run is doing, as one small file in its work folder, status.json.

The live view, the lines of a log and ``compt status`` all show this. Reading it needs neither torch
nor the config.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from compt.files import FORMAT, read_record
from compt.report.metrics import MetricValue
from compt.report.state import Mode

StageState = Literal["waiting", "growing", "running", "evaluating", "done", "failed"]
RunState = Literal["running", "finished", "interrupted", "failed"]
Points = tuple[tuple[float, float], ...]
"""Numbers by the samples that a stage had been trained on."""
ACTIVE = ("growing", "running", "evaluating", "failed")
"""States of the stage that a run is at."""
ADVICE = "The run writes it anew; without one, remove it."

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Curves:
    """How a stage's loss and main metric went."""

    losses: Points = ()
    """Thinned: each is a mean over neighbours. Those of learned growth are not in it."""
    metric: str | None = None
    """Name of the main metric, None before anything is measured."""
    chance: float | None = None
    higher_is_better: bool | None = None
    unit: str | None = None
    points: Points = ()
    """The main metric's values."""

    def metric_value(self, value: float | None) -> MetricValue:
        """Return a value of the main metric with what is known of it."""
        return MetricValue(value, self.chance, self.higher_is_better, self.unit)


@dataclass(frozen=True, kw_only=True)
class StageStatus(Curves):
    """How far one stage is."""

    name: str
    params: int = 0
    flops: float = 0.0
    """Planned, or spent where the stage is done."""
    iters: int = 0
    batch_size: int = 0
    """Samples an iteration, over all processes."""
    growth_iters: int = 0
    """Calls that a grower has announced, or made where they are more."""
    state: StageState = "waiting"
    iteration: int = 0
    growth_calls: int = 0
    flops_done: float = 0.0
    samples_per_second: float | None = None
    """Lately, in training."""
    seconds: float = 0.0
    """Of growth and training, where the stage is done."""
    seconds_left: float | None = None
    """Of the stage, evaluations included, when the file was written."""

    @property
    def samples(self) -> int:
        """Planned, or trained on where the stage is done."""
        return self.iters * self.batch_size


@dataclass(frozen=True, kw_only=True)
class Reference(Curves):
    """Curves of another stage that the running one is seen beside."""

    label: str
    samples: int
    """That it was trained on in all."""
    is_alone: bool = False
    """Whether it is the same member, trained without the chain."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What a run is doing, or how it has ended."""

    mode: Mode
    stages: tuple[StageStatus, ...]
    state: RunState = "running"
    reason: str = ""
    """Why it has ended, where it was interrupted or has failed."""
    references: tuple[Reference, ...] = ()
    """Of the running stage."""
    seconds_left: float | None = None
    """Of the whole run, when the file was written."""
    left_is_bound: bool = False
    """Whether that is the most that it may take, as no stage of another size was timed yet."""
    started: float = 0.0
    """When this process began to train, as Unix time; so are the next two."""
    written: float = 0.0
    """The last sign of life."""
    progressed: float = 0.0
    """When the run last said that it had got on."""
    host: str = ""
    boot: str = ""
    """Identity of the running system, which containers of one machine share."""
    pid: int = 0
    process_started: str = ""
    """What tells the process from a later one of the same number."""
    world_size: int = 1
    memory_bytes: int | None = None
    """Of the main process, now."""
    device_memory_bytes: int | None = None
    """The most that torch has had allocated on the main process's CUDA device."""
    device_total_bytes: int | None = None
    left_out: tuple[str, ...] = ()
    """Sentences on what of the data was left out."""

    @property
    def current(self) -> StageStatus | None:
        """The stage that the run is at, None before the first and after the last."""
        return next((stage for stage in self.stages if stage.state in ACTIVE), None)

    @property
    def share(self) -> float:
        """How much of the run's compute is done, from 0 to 1."""
        total = sum(stage.flops for stage in self.stages)
        return sum(stage.flops_done for stage in self.stages) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON types."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunStatus:
        """Read a status from JSON types, of this compt or another version.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another type.
        """
        stages = tuple(_read(StageStatus, stage) for stage in content["stages"])
        references = tuple(_read(Reference, curve) for curve in content.get("references", ()))
        left_out = tuple(content.get("left_out", ()))
        parts = {"stages": stages, "references": references, "left_out": left_out}
        return _read(cls, {**content, **parts})

    def write(self, path: Path) -> None:
        """Write status.json, so that a reader has the old one or this.

        Raises:
            OSError: the file cannot be written.
        """
        # Not writing.atomic: to wait for the disk is not worth it here, and a thread writes this.
        # atomic() sets the umask for a moment, which is the whole process's.
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        beside.write_text(json.dumps(self.to_json(), allow_nan=False) + "\n", encoding="utf-8")
        os.replace(beside, path)

    @classmethod
    def read(cls, path: Path) -> RunStatus:
        """Read status.json.

        Raises:
            WorkDirError: the file is damaged or of another format.
        """
        return read_record(path, cls.from_json, ADVICE)


def _read(kind: type[T], content: Mapping[str, Any]) -> T:
    """Make a record of those of its fields that are there, lists of points as tuples."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    known = {name: value for name, value in content.items() if name in names}
    for name in ("losses", "points"):
        if name in known:
            known[name] = tuple((float(x), float(y)) for x, y in known[name])
    return kind(**known)
