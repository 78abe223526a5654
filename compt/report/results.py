"""Read the records of finished stages as what every member of a run cost and reached.

A member of a chain is charged with all members before it, a member trained individually with itself
only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compt.errors import WorkDirError
from compt.files import MANIFEST, STATE, damaged, stage_name
from compt.report.evaluations import Evaluation, read_noting
from compt.report.metrics import as_json
from compt.report.record import ADVICE, StageRecord
from compt.report.speed import device_peak, mfu
from compt.report.state import ChainState, Mode


@dataclass(frozen=True)
class MemberResult:
    """One finished stage in its run."""

    record: StageRecord
    ancestor_flops: float
    """Of the stages before it that it builds on."""
    evaluations: tuple[Evaluation, ...] = ()
    """What suites of benchmarks measured of it."""
    evaluation_notes: tuple[str, ...] = ()
    """What is wrong with those."""
    peak: float | None = None
    """Of a device that it was trained on, in FLOP/s, None where it is not known."""

    @property
    def name(self) -> str:
        """Of the member."""
        return self.record.name

    @property
    def flops(self) -> float:
        """Of the stage alone."""
        return self.record.flops.total

    @property
    def cumulative_flops(self) -> float:
        """Of the stage and all it builds on."""
        return self.ancestor_flops + self.flops

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: the share of the peak that was reached, None without one."""
        return mfu(self.record, self.peak)

    @property
    def grower(self) -> str | None:
        """The grower's name, None where nothing was grown."""
        return self.record.grower if self.record.growth else None

    @property
    def exact(self) -> bool | None:
        """Whether growing kept the function, None where nothing was grown."""
        growth = self.record.growth
        return growth.function_preserving if growth else None

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """Return the points at which a metric was measured.

        As FLOPs, those of the stages before it charged, and values.
        """
        points = ((self.ancestor_flops + p.flops, p.value(metric)) for p in self.record.curve)
        return [(flops, value) for flops, value in points if value is not None]

    def _growth_to_json(self) -> dict[str, Any] | None:
        """Return what growing did, without the status of every tensor."""
        if self.record.growth is None:
            return None
        content = self.record.growth.to_json()
        del content["params"]
        return content

    def to_json(self) -> dict[str, Any]:
        """Return the member as report.json has it."""
        record = self.record
        return {
            "name": record.name,
            "params": record.params,
            "samples": record.samples,
            "flops": self.flops,
            "ancestor_flops": self.ancestor_flops,
            "cumulative_flops": self.cumulative_flops,
            "seconds": record.seconds,
            "samples_per_second": record.samples_per_second,
            "flops_per_second": record.flops_per_second,
            "peak_flops_per_second": self.peak,
            "mfu": self.mfu,
            "teacher_share": record.teacher_share,
            "teacher_time_share": record.teacher_time_share,
            **record.usage,
            "grower": self.grower,
            "exact": self.exact,
            "growth": self._growth_to_json(),
            "transfer": record.transfer,
            "metrics": {name: asdict(metric) for name, metric in record.metrics.items()},
            "main_metric": record.main_metric,
            "curve": [
                {**asdict(point), "metrics": {name: point.value(name) for name in point.metrics}}
                for point in record.curve
            ],
            "left_out": record.left_out,
            "environment": record.environment,
            "evaluations": [as_json(evaluation) for evaluation in self.evaluations],
        }


@dataclass(frozen=True)
class RunResult:
    """One work folder."""

    label: str
    """'chain' or 'alone', with a number where there are several."""
    path: str
    mode: Mode
    members: tuple[MemberResult, ...]
    unfinished: Mapping[str, str]
    """The members without a result, each 'started' or 'not started'."""
    state: ChainState | None = None
    """What the work folder says of the run, None where there is no folder."""

    @property
    def flops(self) -> float:
        """Of all members."""
        return sum(member.flops for member in self.members)

    @property
    def seconds(self) -> float:
        """Of all members."""
        return sum(member.record.seconds for member in self.members)

    def find(self, name: str) -> MemberResult | None:
        """Return the member of this name, None where there is none."""
        return next((member for member in self.members if member.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return the run as report.json has it."""
        return {
            "label": self.label,
            "path": self.path,
            "mode": self.mode,
            "flops": self.flops,
            "seconds": self.seconds,
            "members": [member.to_json() for member in self.members],
            "unfinished": self.unfinished,
        }


def read_state(folder: Path) -> ChainState:
    """Read what a work folder says of its run.

    Raises:
        WorkDirError: it is no work folder of compt, or damaged.
    """
    path = folder / STATE
    if not path.is_file():
        do = "Name the --work-dir of 'compt train', the folder that holds chain.json."
        if (folder.parent / STATE).is_file():
            do = f"This is one stage; name its work folder: {folder.parent}"
        fault = "is not the work folder of a compt run" if folder.exists() else "does not exist"
        raise WorkDirError(f"'{folder.name}' {fault}.", where=str(folder), do=do)
    return ChainState.read(path)


def read_run(
    folder: Path, state: ChainState, label: str, *, tflops: float | None = None
) -> RunResult:
    """Read the records of a run's stages.

    Args:
        folder: of the run.
        state: what it says of the run.
        label: what the run is called.
        tflops: peak of each device in TFLOP/s, None for that of its data sheet, where it is known.

    Raises:
        WorkDirError: a record is damaged or missing between others.
    """
    members: list[MemberResult] = []
    unfinished: dict[str, str] = {}
    chained = state.mode == "chain"
    for index, name in enumerate(state.members):
        stage = folder / stage_name(index, name)
        if not (stage / MANIFEST).is_file():
            unfinished[name] = "started" if stage.is_dir() else "not started"
            continue
        if chained and unfinished:
            raise _lost(folder, name, unfinished)
        ancestors = sum(member.flops for member in members) if chained else 0.0
        record = _read_record(stage / MANIFEST, name)
        peak = device_peak(record) if tflops is None else 1e12 * tflops
        evaluations, notes = read_noting(stage, record.files)
        members.append(MemberResult(record, ancestors, evaluations, notes, peak))
    return RunResult(label, str(folder), state.mode, tuple(members), unfinished, state)


def start_note(state: ChainState, label: str) -> str:
    """Return what a run's compute leaves out, '' where it is all counted."""
    first: Sequence[Mapping[str, Any]] = state.config.get("chain") or [{}]
    if not (init := first[0].get("init")):
        return ""
    name = state.members[0]
    return f"{label}: '{name}' starts from {init}; what that had cost is not counted."


def _read_record(path: Path, name: str) -> StageRecord:
    record = StageRecord.read(path)
    if record.name != name:
        raise damaged(path, f"it is of member '{record.name}', not '{name}'", ADVICE)
    return record


def _lost(folder: Path, name: str, unfinished: Mapping[str, str]) -> WorkDirError:
    names = ", ".join(f"'{member}'" for member in unfinished)
    return WorkDirError(
        f"'{name}' is done, but the members before it have no manifest: {names}.",
        where=str(folder),
        do="Restore the manifests, or go on with --resume.",
    )
