"""mmengine Config in, frozen ChainConfig out; every fault is collected and reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.config.checks import (
    RUNNER_KEYS,
    budget,
    check_keys,
    check_numbers,
    check_plugins,
    check_schedules,
    check_stage_keys,
    check_state,
    check_whole,
    grown_options,
    individual_budget,
    performance,
    published_figures,
    stop_rule,
)
from compt.config.file import import_modules, read_config
from compt.errors import Faults
from compt.growth.optimizer_state import GrownOptions
from compt.interfaces import Member
from compt.registry import GROWERS, PARADIGMS, TRANSFERERS

DEFAULTS: Mapping[str, Any] = {
    "grower": {"type": "lossless"},
    "transfer": {"type": "none"},
    "checkpoint": {"interval": 500, "keep": 2},
    "evaluations": 4,
    "seed": 0,
    "train_dataloader": {"batch_size": 128, "num_workers": 0},
    "optim_wrapper": {
        "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.98)}
    },
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 1e-3, "begin": 0.0, "end": 0.05},
        {"type": "CosineAnnealingLR", "eta_min": 0.0, "begin": 0.05, "end": 1.0},
    ],
}


@dataclass(frozen=True)
class StageConfig:
    """One member and its stage. ``budget`` is one of epochs, iters, samples with its number."""

    member: Member
    budget: tuple[str, float]
    grower: Mapping[str, Any]
    transfer: Mapping[str, Any]
    init: str | None = None
    stop: Mapping[str, Any] | None = None
    """The rule, if any, that may end the stage before its budget is spent; see
    :mod:`compt.config.stopping`.
    """
    grown: GrownOptions = field(default_factory=GrownOptions)
    """How it is trained where it is grown."""
    performance: Mapping[str, Any] = field(default_factory=dict)
    """Those given, of :class:`compt.training.performance.Performance`."""
    runner: Mapping[str, Any] = field(default_factory=dict)
    """The keys of an mmengine Runner for this stage: the chain's own, and what the stage
    overrides.
    """


@dataclass(frozen=True)
class ChainConfig:
    """A checked config: what every file after this one works from.

    ``individual`` is the budget of a member trained alone, ``('chain', 0)`` for its own in the
    chain, None for the first member's. ``evaluations`` counts the evaluations of a stage, the last
    one at its end. ``raw`` is the config as plain types. ``published`` are a publication's figures
    for the plan.
    """

    name: str
    where: str
    """Path of the config file, for messages."""
    paradigm: Mapping[str, Any]
    stages: tuple[StageConfig, ...]
    individual: tuple[str, float] | None
    seed: int
    checkpoint: Mapping[str, int]
    evaluations: int
    compare: bool
    """Whether to train every member alone too, after the chain, and to report both."""
    work_dir: Path
    raw: Mapping[str, Any]
    published: Mapping[str, Any] = field(default_factory=dict)


def load_config(
    source: str | Path | Mapping[str, Any] | Config, options: Mapping[str, Any] | None = None
) -> ChainConfig:
    """Read and check a config.

    Args:
        source: path of an mmengine text config, a dict, or a Config.
        options: dotted keys to override, as from ``--cfg-options chain.1.epochs=9``.

    Raises:
        ConfigError: the file cannot be read, or with the list of all faults.
        PluginError: a plug-in that the config names is broken.
    """
    file = read_config(source, options)
    faults = Faults(file.where)
    raw = check_keys(file, faults)
    import_modules(raw.get("custom_imports"), file.where)
    stages = _stages(raw, faults)
    check_plugins(
        [
            (PARADIGMS, "paradigm", raw.get("paradigm")),
            *((GROWERS, f"grower (chain.{i})", stage.grower) for i, stage in enumerate(stages)),
            *(
                (TRANSFERERS, f"transfer (chain.{i})", stage.transfer)
                for i, stage in enumerate(stages)
            ),
        ],
        faults,
    )
    individual = individual_budget(raw.get("individual"), faults)
    published = published_figures(
        raw.get("published"), [stage.member.name for stage in stages], faults
    )
    check_numbers(raw, faults)
    faults.raise_if_any()
    return ChainConfig(
        name=file.name,
        where=file.where,
        paradigm=raw["paradigm"],
        stages=tuple(stages),
        individual=individual,
        seed=raw.get("seed", DEFAULTS["seed"]),
        checkpoint={**DEFAULTS["checkpoint"], **raw.get("checkpoint", {})},
        evaluations=raw.get("evaluations", DEFAULTS["evaluations"]),
        compare=bool(raw.get("compare", False)),
        work_dir=Path(raw.get("work_dir") or Path("work_dirs") / file.name),
        raw=raw,
        published=published,
    )


def _stages(raw: Mapping[str, Any], faults: Faults) -> list[StageConfig]:
    chain = raw.get("chain") or []
    if not isinstance(chain, list) or not all(isinstance(stage, Mapping) for stage in chain):
        faults.add("chain must be a list of dict(name=..., model=..., epochs=...).")
        return []
    stages = [_stage(i, stage, raw, faults) for i, stage in enumerate(chain)]
    names = [stage.member.name for stage in stages]
    for name in sorted({n for n in names if names.count(n) > 1}):
        faults.add(
            f"chain: the name '{name}' is used {names.count(name)} times; members need names of their own."
        )
    check_state(
        [(stage.grown, stage.runner["optim_wrapper"], stage.budget[1]) for stage in stages], faults
    )
    return stages


def _stage(
    index: int, given: Mapping[str, Any], raw: Mapping[str, Any], faults: Faults
) -> StageConfig:
    where = f"chain.{index}"
    stage = check_stage_keys(given, where, faults)
    name = stage.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        faults.add(f"{where}.name: {name!r} is not a name of letters, digits, '.', '_' and '-'.")
    if not stage.get("model"):
        faults.add(f"{where}.model is missing.")
    if stage.get("init") and index:
        faults.add(
            f"{where}.init: only the first member can start from a checkpoint; the others are grown."
        )
    runner = _runner(stage, raw)
    check_schedules(
        runner["param_scheduler"], "" if "param_scheduler" not in stage else f"{where}.", faults
    )
    overrides = "batch_size" in (stage.get("train_dataloader") or {})
    key = f"{where}.train_dataloader.batch_size" if overrides else "train_dataloader.batch_size"
    check_whole(runner["train_dataloader"]["batch_size"], key, 1, faults)
    return StageConfig(
        member=Member(str(name), stage.get("model")),
        budget=budget(stage, where, faults, may_be_zero=bool(stage.get("init"))),
        grower=_typed(stage.get("grower", raw.get("grower", DEFAULTS["grower"]))),
        transfer=_typed(stage.get("transfer", raw.get("transfer", DEFAULTS["transfer"]))),
        init=stage.get("init"),
        stop=stop_rule(stage.get("budget"), where, faults),
        grown=grown_options(stage.get("grown", raw.get("grown")), where, "grown" in stage, faults),
        performance=performance(stage, raw, where, faults),
        runner=runner,
    )


def _runner(stage: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The Runner's keys of a stage: defaults, the chain's, the stage's own merged into them."""
    runner = {
        key: raw.get(key, DEFAULTS.get(key)) for key in RUNNER_KEYS if key in raw or key in DEFAULTS
    }
    for key in ("optim_wrapper", "param_scheduler", "train_dataloader"):
        if key in stage:
            runner[key] = _merged(runner.get(key), stage[key])
    for key in ("optim_wrapper", "train_dataloader"):  # what is not given keeps its default
        runner[key] = {**DEFAULTS[key], **(runner[key] or {})}
    return runner


def _merged(base: Any, override: Any) -> Any:
    """Merge dicts key by key, as mmengine's configs inherit; anything else replaces, as
    ``_delete_=True`` does.
    """
    if not isinstance(override, Mapping):
        return override
    given = {key: value for key, value in override.items() if key != "_delete_"}
    other_type = isinstance(base, Mapping) and "type" in given and given["type"] != base.get("type")
    if not isinstance(base, Mapping) or override.get("_delete_") or other_type:
        return given
    return {**base, **{key: _merged(base.get(key), value) for key, value in given.items()}}


def _typed(value: Any) -> Any:
    return (
        {"type": value}
        if isinstance(value, str)
        else value
        if value is not None
        else {"type": "none"}
    )
