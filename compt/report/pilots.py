"""Read pilots, which are short runs of members alone, as curves that a law can be fitted to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compt.config import ChainConfig, StageConfig
from compt.config.resuming import plain
from compt.errors import ConfigError, did_you_mean
from compt.files import CONFIG, stage_name
from compt.interfaces.foreign import read_literals
from compt.planning.law import FEWEST_POINTS, Curve
from compt.planning.rates import Schedule
from compt.registry.foreign_configs import check_types
from compt.report.format import is_share
from compt.report.metrics import MetricValue
from compt.report.record import StageRecord
from compt.report.results import read_run, read_state
from compt.report.state import ChainState

ADVICE = "Give work folders of compt train CONFIG --individual, of this CONFIG's members."

BY_WIDTH = "rates_by_width"
NOT_COMPARED = ("type", "constructor", "rate_factors")
"""Entries of an optimizer's wrapper that say nothing beside the others, or follow from a key."""


@dataclass
class Pilots:
    """What pilots of a family's members measured."""

    metric: str
    """'split/name'."""
    is_error: bool
    """Whether the metric is a share that is to rise, and what it lacks to 1 is fitted."""
    losses: Sequence[str] = ()
    """Other metrics of the pilots that are to fall."""
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    """By member."""
    flops: float = 0.0
    """Of all runs that were read, used or not."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What was not used, by reason."""

    def value(self, loss: float) -> float:
        """Return the metric's value at a loss as it is fitted."""
        return 1 - loss if self.is_error else loss

    def notes(self) -> list[str]:
        """Say what was left out, and that a metric was turned."""
        lines = [f"left out of the pilots: {n} {reason}" for reason, n in self.left_out.items()]
        if self.is_error:
            note = f"{self.metric} is a share that rises; what it lacks to 1 is fitted"
            if self.losses:
                note += f" (--metric {self.losses[0]} is a loss, which is what the law is of)"
            lines.insert(0, note)
        return lines


def read_pilots(folders: Sequence[Path], config: ChainConfig, metric: str | None = None) -> Pilots:
    """Read work folders of members alone, at whichever lengths and seeds.

    Args:
        folders: of the runs; a folder that is named twice counts once.
        config: of the family.
        metric: 'split/name'; None for the main one.

    Raises:
        ConfigError: one is a chain's or of another family, a member has too few points, or the
            metric cannot be fitted.
        WorkDirError: one is no work folder, or damaged.
    """
    left_out: Counter[str] = Counter()
    runs = list(_runs(folders, config, left_out))
    if not runs:
        raise ConfigError("No pilot of a member has finished.", do=ADVICE)
    pilots = _of_metric([run.record for run in runs], metric)
    pilots.left_out = left_out
    for run in runs:
        pilots.flops += run.record.flops.total
        if reason := run.unlike() or _add(pilots, run):
            left_out[reason] += 1
    _check_points(pilots, config)
    return pilots


@dataclass(frozen=True)
class _Run:
    """One member of a pilot that has finished."""

    record: StageRecord
    stage: StageConfig
    """What the config of the family says of the member."""
    saved: Mapping[str, Any] | None
    """What it was trained by, None where that is lost."""

    def unlike(self) -> str:
        """Say why a run tells nothing of how the config trains its member, '' where it does."""
        if self.saved is None:
            return f"run(s) without {CONFIG}"
        if self.record.batch_size != self.stage.batch_size:
            return "run(s) with other batches than in the config"
        own, wanted = self.saved["optim_wrapper"], self.stage.optim_wrapper
        rate, wanted_rate = (wrapper["optimizer"].get("lr") for wrapper in (own, wanted))
        if not _alike(rate, wanted_rate):
            name = self.stage.name
            return f"run(s) of '{name}' with the learning rate {rate}, not {wanted_rate}"
        if not _alike(_optimizer(own), _optimizer(wanted)):
            return "run(s) with another optimizer than in the config"
        return ""


def _alike(own: Any, wanted: Any) -> bool:
    """Whether values are equal, floats up to how they were computed, as 0.0055 and 0.011 / 2."""
    if isinstance(own, float) and isinstance(wanted, float):
        return math.isclose(own, wanted, rel_tol=1e-6)
    if isinstance(own, Mapping) and isinstance(wanted, Mapping):
        return own.keys() == wanted.keys() and all(_alike(own[k], wanted[k]) for k in own)
    if isinstance(own, list | tuple) and isinstance(wanted, list | tuple):
        return len(own) == len(wanted) and all(map(_alike, own, wanted))
    return bool(own == wanted)


def _runs(folders: Sequence[Path], config: ChainConfig, left_out: Counter[str]) -> Iterator[_Run]:
    """Yield every finished member of the pilots, and count the others."""
    for folder in dict.fromkeys(path.resolve() for path in folders):
        state = read_state(folder)
        if state.mode != "individual":
            raise ConfigError(
                "A pilot is a run of members alone, and this is a chain's.",
                where=str(folder),
                do=ADVICE,
            )
        run = read_run(folder, state, folder.name)
        for index, name in enumerate(state.members):
            stage = _same_member(folder, state, index, config)
            result = run.find(name)
            if result is None:
                left_out["member(s) that have not finished, whose compute is not counted"] += 1
                continue
            saved = folder / stage_name(index, name) / CONFIG
            yield _Run(result.record, stage, _read_saved(saved))


def _same_member(folder: Path, state: ChainState, index: int, config: ChainConfig) -> StageConfig:
    """Return the config of a pilot's member.

    Raises:
        ConfigError: there is none, or it is another model, or is taught something else.
    """
    name = state.members[index]
    stage = next((known for known in config.stages if known.name == name), None)
    fault = "" if stage else f"has a member '{name}', which the config has not"
    if stage is not None and state.config:
        if state.config["paradigm"] != plain(config.file.content["paradigm"]):
            fault = "was trained with another paradigm, or other data"
        elif state.config.get(BY_WIDTH) != plain(config.file.content.get(BY_WIDTH)):
            fault = f"was trained with other {BY_WIDTH}"
        elif state.config["chain"][index]["model"] != plain(stage.model):
            fault = f"has another model under the name '{name}'"
    if stage is None or fault:
        sentence = f"The pilot is not of this family: it {fault}."
        raise ConfigError(sentence, where=str(folder), do=ADVICE)
    return stage


def _read_saved(path: Path) -> Mapping[str, Any] | None:
    """Return what a member was trained by, of which nothing is run, None where that is lost.

    Raises:
        ConfigError: it is not as compt writes it.
    """
    if not path.is_file():
        return None
    saved = read_literals(path)
    try:
        check_types(saved["param_scheduler"], path)
        sound = isinstance(saved["optim_wrapper"]["optimizer"], Mapping)
        sound = sound and isinstance(saved["train_cfg"]["max_iters"], int)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise ConfigError("The config is of no stage that was trained.", where=str(path), do=ADVICE)
    return saved


def _optimizer(wrapper: Mapping[str, Any]) -> Any:
    """Return what of an optimizer's wrapper decides how a member learns."""
    return plain({k: v for k, v in wrapper.items() if k not in NOT_COMPARED})


def _of_metric(records: Sequence[StageRecord], name: str | None) -> Pilots:
    """Return pilots of a metric, without curves yet.

    Raises:
        ConfigError: it is not measured everywhere, or the law is none for it.
    """
    known = set.intersection(*(set(record.metrics) for record in records))
    name = name or records[0].main_metric
    if name is None or name not in known:
        near = did_you_mean(name or "", sorted(known))
        raise ConfigError(
            f"Not all pilots have measured {name or 'a metric'}.{near}",
            where="--metric",
            do=f"One of {', '.join(sorted(known))}." if known else "Train them with evaluations.",
        )
    metric = records[0].metrics[name]
    is_error = metric.higher_is_better is True and is_share(metric)
    losses = sorted(n for n in known if records[0].metrics[n].higher_is_better is False)
    if metric.higher_is_better is not False and not is_error:
        raise ConfigError(
            f"{name} rises and is no share, and the law is one of losses, which fall.",
            where="--metric",
            do=f"One of {', '.join(losses)}." if losses else "Measure a loss beside it.",
        )
    return Pilots(name, is_error, losses)


def _add(pilots: Pilots, run: _Run) -> str:
    """Add the curve of a run, or say why it has none."""
    assert run.saved is not None
    final = run.record.metrics[pilots.metric]
    if final.value is None or (final.chance is not None and not _beats_chance(final)):
        return "run(s) that diverged, or learned nothing"
    length = int(run.saved["train_cfg"]["max_iters"])
    schedule = Schedule(run.saved["param_scheduler"])
    warm = schedule.warmup_end(length)
    points = []
    for point in run.record.curve:
        value = point.value(pilots.metric)
        loss = math.nan if value is None else pilots.value(value)
        if point.iteration < warm:
            pilots.left_out["evaluation(s) during warm-up"] += 1
        elif loss > 0:
            points.append((float(point.iteration), loss))
        else:
            pilots.left_out["evaluation(s) that were not finite, or not above 0"] += 1
    if not points:
        return "run(s) without an evaluation after warm-up"
    iterations, losses = np.array(points).T
    curve = Curve(length, schedule.rates(length), iterations, losses)
    pilots.curves.setdefault(run.stage.name, []).append(curve)
    return ""


def _beats_chance(metric: MetricValue) -> bool:
    assert metric.value is not None and metric.chance is not None
    return metric.sign * metric.value > metric.sign * metric.chance


def _check_points(pilots: Pilots, config: ChainConfig) -> None:
    """Raise ConfigError where a member has too few points for its law."""
    for stage in config.stages:
        curves = pilots.curves.get(stage.name, [])
        num_points = sum(len(curve.losses) for curve in curves)
        if num_points < FEWEST_POINTS:
            raise ConfigError(
                f"'{stage.name}' has {num_points} evaluation(s) in {len(curves)} pilot(s), and its "
                f"law needs {FEWEST_POINTS} at least, after warm-up.",
                where="; ".join(pilots.notes()),
                do="Add pilots of other lengths, or train them with more evaluations.",
            )
