"""The record of a finished stage, manifest.json, from which reports are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.files import FORMAT, read_record, sealed, write_json
from compt.registry.registry import short_name
from compt.report.growth import GrowthRecord, GrowthReport
from compt.report.metrics import (
    CurvePoint,
    Metrics,
    MetricValue,
    as_json,
    main_metric,
    read_metrics,
)
from compt.report.outcome import Incidents, StageOutcome, Usage
from compt.report.software import environment
from compt.report.state import Mode

if TYPE_CHECKING:
    from compt.planning.plans import StagePlan

ADVICE = "Restore the file from a copy, or remove it and train the stage again with --resume."


@dataclass(frozen=True)
class Flops:
    """What a stage computed, where a multiply-add counts as 2."""

    total: float
    """Of the stage, with learned growth and the teacher passes that ran."""
    student_per_sample: float = 0.0
    """Forward and backward."""
    teacher_per_sample: float = 0.0
    """Forward; 0 without a teacher."""
    growth: float = 0.0
    """Of learned growth."""
    saved: float = 0.0
    """That ``total`` leaves out, of backward passes to what was frozen."""


@dataclass(frozen=True)
class WeightsFile:
    """The file of a stage's weights, which the next stage grows from.

    Of weights in shards it is their index; the shards are among the record's ``files``.
    """

    file: str
    """Its name in the stage's folder."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StageRecord(Incidents, Usage):
    """What a finished stage was, cost and reached.

    What it took of the machine is declared in :class:`compt.report.outcome.Usage`:
    ``evaluation_seconds``, ``data_seconds``, ``checkpoint_seconds``, ``peak_memory_bytes``,
    ``peak_device_memory_bytes``, ``energy_joules``, ``energy_meters``, ``teacher_iters``,
    ``teacher_seconds``, ``processes`` and ``precision``. ``samples_per_second``,
    ``flops_per_second``, ``teacher_share`` and ``teacher_time_share`` follow from other fields.
    """

    name: str
    """Of the member."""
    index: int
    mode: Mode
    paradigm: str
    """Its short name, as those of grower and transfer."""
    grower: str | None
    """None where nothing is grown."""
    transfer: str | None
    """None where no teacher is run."""
    params: int
    samples: int
    """That were trained on, over all processes."""
    iters: int
    batch_size: int
    """Samples an iteration, over all processes."""
    flops: Flops
    seconds: float
    """Of growth and training; evaluations are not counted."""
    growth_seconds: float = 0.0
    metrics: Metrics = field(default_factory=dict)
    """At the end of the stage."""
    raw_metrics: Metrics = field(default_factory=dict)
    """The same of the last weights, where an average of them was delivered."""
    main_metric: str | None = None
    """The one that reports compare, None where nothing was measured."""
    curve: tuple[CurvePoint, ...] = ()
    """By iteration, the last point at the end of the stage."""
    growth: GrowthReport | None = None
    weights: WeightsFile | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the other files that are read again, by path in the stage's folder, and of the
    export's texts but for its cards."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """See :func:`compt.report.software.environment`."""

    @property
    def main(self) -> MetricValue | None:
        """The main metric, None where nothing finite was measured."""
        metric = self.metrics.get(self.main_metric or "")
        return metric if metric and metric.value is not None else None

    @property
    def samples_per_second(self) -> float | None:
        """Samples a second of training alone, None where nothing was trained."""
        seconds = self.seconds - self.growth_seconds
        trained = self._trained_samples
        return trained / seconds if trained and seconds > 0 else None

    @property
    def flops_per_second(self) -> float | None:
        """FLOPs a second of training alone on each device, None where they are not known.

        Passes of the teacher and iterations that were lost are among them.
        """
        seconds = self.seconds - self.growth_seconds
        flops = self.flops.total - self.flops.growth
        if not self.processes or seconds <= 0 or flops <= 0:
            return None
        return flops / seconds / self.processes

    @property
    def teacher_share(self) -> float | None:
        """The teacher's share of the stage's FLOPs, None where it is not recorded."""
        flops = self.flops
        if not (flops.total and flops.student_per_sample):
            return None
        student = self._trained_samples * flops.student_per_sample - flops.saved
        return max(0.0, flops.total - flops.growth - student) / flops.total

    @property
    def teacher_time_share(self) -> float | None:
        """The teacher's share of the seconds of training, None where it is not recorded."""
        seconds = self.seconds - self.growth_seconds
        if self.teacher_seconds is None or seconds <= 0:
            return None
        return self.teacher_seconds / seconds

    @property
    def _trained_samples(self) -> int:
        """Samples that were trained on, those counted twice that a stage went back over."""
        return (self.iters + self.repeated) * self.batch_size

    @classmethod
    def of_stage(
        cls,
        plan: StagePlan,
        *,
        mode: Mode,
        paradigm: str,
        outcome: StageOutcome,
        growth: GrowthRecord,
        weights: WeightsFile,
        files: Mapping[str, str],
    ) -> StageRecord:
        """Return the record of a stage that has just been trained.

        Args:
            plan: of the stage, which may have ended sooner.
            paradigm: its name in the config.
            files: SHA-256 of the files that are read again, but for the weights, and of texts.
        """
        ran = _as_it_ran(plan, outcome, growth.calls)
        points = tuple(_point(ran, evaluation, growth.seconds) for evaluation in outcome.curve)
        metrics = points[-1].metrics if points else {}
        return cls(
            name=ran.name,
            index=ran.index,
            mode=mode,
            paradigm=short_name(paradigm),
            grower=_short(ran.grower),
            transfer=_short(ran.transfer),
            params=ran.params,
            samples=ran.samples,
            iters=ran.iters,
            batch_size=ran.batch_size,
            flops=_flops(ran, outcome),
            seconds=growth.seconds + outcome.seconds,
            growth_seconds=growth.seconds,
            **outcome.incidents,
            **outcome.usage,
            metrics=metrics,
            raw_metrics=read_metrics(outcome.raw_metrics),
            main_metric=main_metric(metrics),
            curve=points,
            growth=growth.report,
            weights=weights,
            files=files,
            environment=environment(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        content = as_json(self)
        if not self.flops.saved:
            del content["flops"]["saved"]
        return {
            "format": FORMAT,
            **content,
            "curve": [point.to_json() for point in self.curve],
            "growth": None if self.growth is None else self.growth.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StageRecord:
        """Read a record from JSON types, of this compt or an older one.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another type.
        """
        metrics, weights = read_metrics(content["metrics"]), content.get("weights")
        growth, flops = content.get("growth"), content["flops"]
        return cls(
            name=str(content["name"]),
            index=int(content["index"]),
            mode=content["mode"],
            paradigm=content["paradigm"],
            grower=content.get("grower"),
            transfer=content.get("transfer"),
            params=int(content["params"]),
            samples=int(content["samples"]),
            iters=int(content["iters"]),
            batch_size=int(content["batch_size"]),
            flops=Flops(**{name: float(value) for name, value in flops.items()}),
            seconds=float(content["seconds"]),
            growth_seconds=float(content.get("growth_seconds", 0.0)),
            broken_samples=int(content.get("broken_samples", 0)),
            left_out=dict(content.get("left_out") or {}),
            stopped=content.get("stopped", ""),
            delivered=content.get("delivered", "last"),
            plateau_iter=content.get("plateau_iter"),
            repeated=int(content.get("repeated", 0)),
            spikes=tuple(content.get("spikes", ())),
            rollbacks=tuple(content.get("rollbacks", ())),
            **Usage.from_json(content).usage,
            metrics=metrics,
            raw_metrics=read_metrics(content.get("raw_metrics") or {}),
            main_metric=content.get("main_metric") or main_metric(metrics),
            curve=_curve(content),
            growth=None if growth is None else GrowthReport.from_json(growth),
            weights=None if weights is None else WeightsFile(**weights),
            files=dict(content.get("files") or {}),
            environment=dict(content.get("environment") or {}),
        )

    def write(self, path: Path) -> None:
        """Write manifest.json, atomically.

        Raises:
            TrainingError: the file cannot be written.
        """
        write_json(path, sealed(self.to_json()))

    @classmethod
    def read(cls, path: Path) -> StageRecord:
        """Read manifest.json.

        Raises:
            WorkDirError: the file is damaged or of another format.
        """
        return read_record(path, cls.from_json, ADVICE)


def _short(name: str | None) -> str | None:
    return None if name is None else short_name(name)


def _as_it_ran(plan: StagePlan, outcome: StageOutcome, growth_calls: int) -> StagePlan:
    """Return the plan with the iterations, teacher passes and growth that really were."""
    return replace(
        plan,
        growth_iters=growth_calls,
        iters=outcome.iters,
        samples=outcome.iters * plan.batch_size,
        teacher_iters=min(plan.teacher_iters, outcome.iters),
    )


def _flops(ran: StagePlan, outcome: StageOutcome) -> Flops:
    total = _spent(ran, outcome.iters, outcome.repeated, outcome.teacher_iters)
    saved = ran.saved_until(outcome.iters, outcome.repeated)
    return Flops(total, ran.student_flops, ran.teacher_flops, ran.growth_flops, saved)


def _spent(plan: StagePlan, iters: int, repeated: int, teacher_iters: int | None) -> float:
    """Return the FLOPs from the start of a stage to an iteration.

    Args:
        plan: of the stage as it ran.
        iters: until there.
        repeated: further ones that were trained and lost.
        teacher_iters: iterations of either at which the teacher was run; None where they were not
            counted, which then are those of the plan.
    """
    if teacher_iters is None:
        lost_teacher_iters = repeated if plan.teacher_iters else 0
        teacher_iters = min(iters, plan.teacher_iters) + lost_teacher_iters
    student, teacher = plan.student_flops, plan.teacher_flops
    per_sample = (iters + repeated) * student + teacher_iters * teacher
    saved = plan.saved_until(iters, repeated)
    return plan.growth_flops + plan.batch_size * per_sample - saved


def _point(plan: StagePlan, evaluation: Mapping[str, Any], growth_seconds: float) -> CurvePoint:
    """Return an evaluation with what the stage had cost until then."""
    iteration, repeated = evaluation["iter"], evaluation.get("repeated", 0)
    return CurvePoint(
        iteration=iteration,
        samples=iteration * plan.batch_size,
        flops=_spent(plan, iteration, repeated, evaluation.get("teacher_iters")),
        seconds=growth_seconds + evaluation["seconds"],
        metrics=read_metrics(evaluation["metrics"]),
    )


def _curve(content: Mapping[str, Any]) -> tuple[CurvePoint, ...]:
    """Return a record's points in order, the end alone where no others were measured."""
    if points := content.get("curve"):
        return tuple(sorted(map(CurvePoint.from_json, points), key=lambda p: p.iteration))
    if not content["metrics"]:
        return ()
    end = {**content, "iter": content["iters"], "flops": content["flops"]["total"]}
    return (CurvePoint.from_json(end),)
