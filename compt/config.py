"""mmengine Config in, frozen ChainConfig out; every fault is collected and reported at once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from compt.errors import ConfigError, Faults
from compt.interfaces import Member
from compt.registry import GROWERS, PARADIGMS, TRANSFERERS

BUDGETS = ("epochs", "iters", "samples")
STAGE_KEYS = {
    "name",
    "model",
    "init",
    "grower",
    "transfer",
    "optim_wrapper",
    "param_scheduler",
    "train_dataloader",
    *BUDGETS,
}
RUNNER_KEYS = {
    "train_dataloader",
    "val_dataloader",
    "val_evaluator",
    "optim_wrapper",
    "param_scheduler",
    "visualizer",
    "custom_hooks",
    "default_hooks",
    "env_cfg",
    "model_wrapper_cfg",
    "log_processor",
    "compile",
    "find_unused_parameters",
}
KEYS = {
    "paradigm",
    "chain",
    "grower",
    "transfer",
    "individual",
    "seed",
    "work_dir",
    "checkpoint",
    "evaluations",
    "custom_imports",
    "default_scope",
    "launcher",
    *RUNNER_KEYS,
}
DEFAULTS: Mapping[str, Any] = {
    "grower": {"type": "leading_block"},
    "transfer": {"type": "feature_mse"},
    "checkpoint": {"interval": 500, "keep": 2},
    "evaluations": 4,
    "seed": 0,
    "train_dataloader": {"batch_size": 128, "num_workers": 0},
    "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.98)}},
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
    runner: Mapping[str, Any] = field(default_factory=dict)
    """The keys of an mmengine Runner for this stage: the chain's own, and what the stage overrides."""


@dataclass(frozen=True)
class ChainConfig:
    """A checked config: what every file after this one works from.

    ``individual`` is the budget of a member trained alone, ``('chain', 0)`` for its own in the chain, None for
    the first member's. ``evaluations``
    counts the evaluations of a stage, the last one at its end. ``raw`` is the config as plain types.
    """

    name: str
    paradigm: Mapping[str, Any]
    stages: tuple[StageConfig, ...]
    individual: tuple[str, float] | None
    seed: int
    checkpoint: Mapping[str, int]
    evaluations: int
    work_dir: Path
    raw: Mapping[str, Any]


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
    config = _read(source)
    if options:
        try:
            config.merge_from_dict(dict(options))
        except (KeyError, IndexError, TypeError, AssertionError) as error:
            raise ConfigError(
                f"--cfg-options do not fit the config: {error}.", do="Write them as chain.1.epochs=9."
            ) from error
    raw = {k: v for k, v in config.to_dict().items() if not (callable(v) or inspect.ismodule(v) or k.startswith("_"))}
    faults = Faults(str(config.filename or "config"))
    raw = _known_keys(raw, config, faults)
    stages = _stages(raw, faults)
    _check_types(raw, stages, faults)
    individual = _individual(raw.get("individual"), faults)
    _check_numbers(raw, faults)
    faults.raise_if_any()
    name = Path(config.filename).stem if config.filename else "chain"
    return ChainConfig(
        name=name,
        paradigm=raw["paradigm"],
        stages=tuple(stages),
        individual=individual,
        seed=raw.get("seed", DEFAULTS["seed"]),
        checkpoint={**DEFAULTS["checkpoint"], **raw.get("checkpoint", {})},
        evaluations=raw.get("evaluations", DEFAULTS["evaluations"]),
        work_dir=Path(raw.get("work_dir") or Path("work_dirs") / name),
        raw=raw,
    )


def _read(source: str | Path | Mapping[str, Any] | Config) -> Config:
    if isinstance(source, Config):
        return source
    if isinstance(source, Mapping):
        return Config(dict(source))
    try:
        return Config.fromfile(str(source), import_custom_modules=True, lazy_import=False)
    except FileNotFoundError as error:
        raise ConfigError(f"There is no config file '{source}'.", do="Check the path.") from error
    except ImportError as error:
        raise ConfigError(f"The config's custom_imports cannot be imported: {error}.", where=str(source)) from error
    except Exception as error:  # a config is a program: anything can be wrong in it
        raise ConfigError(
            f"The config cannot be read: {type(error).__name__}: {error}.", where=str(source), do="Correct its syntax."
        ) from error


def _known_keys(raw: dict[str, Any], config: Config, faults: Faults) -> dict[str, Any]:
    """Drop variables that the config file uses itself; every other unknown key is a fault."""
    kept = {}
    for key, value in raw.items():
        if key in KEYS:
            kept[key] = value
        elif len(re.findall(rf"\b{re.escape(key)}\b", config.text or "")) < 2:
            faults.unknown("", key, KEYS)
    for key in ("paradigm", "chain"):
        if not kept.get(key):
            faults.add(f"{key} is missing.")
    return kept


def _stages(raw: Mapping[str, Any], faults: Faults) -> list[StageConfig]:
    chain = raw.get("chain") or []
    if not isinstance(chain, list) or not all(isinstance(stage, Mapping) for stage in chain):
        faults.add("chain must be a list of dict(name=..., model=..., epochs=...).")
        return []
    stages = [_stage(i, stage, raw, faults) for i, stage in enumerate(chain)]
    names = [stage.member.name for stage in stages]
    for name in sorted({n for n in names if names.count(n) > 1}):
        faults.add(f"chain: the name '{name}' is used {names.count(name)} times; members need names of their own.")
    return stages


def _stage(index: int, stage: Mapping[str, Any], raw: Mapping[str, Any], faults: Faults) -> StageConfig:
    where = f"chain.{index}"
    for key in stage:
        if key not in STAGE_KEYS:
            faults.unknown(f"{where}.", key, STAGE_KEYS)
    name = str(stage.get("name", ""))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        faults.add(f"{where}.name: '{name}' is not a name of letters, digits, '.', '_' and '-'.")
    if not stage.get("model"):
        faults.add(f"{where}.model is missing.")
    if stage.get("init") and index:
        faults.add(f"{where}.init: only the first member can start from a checkpoint; the others are grown.")
    budget = _budget(stage, where, faults, may_be_zero=bool(stage.get("init")))
    runner = {k: raw.get(k, DEFAULTS.get(k)) for k in RUNNER_KEYS if k in raw or k in DEFAULTS}
    for key in ("optim_wrapper", "param_scheduler", "train_dataloader"):
        if key in stage:
            runner[key] = _merged(runner.get(key), stage[key])
    for key in ("optim_wrapper", "train_dataloader"):  # what is not given keeps its default
        runner[key] = {**DEFAULTS[key], **(runner[key] or {})}
    return StageConfig(
        member=Member(name, stage.get("model")),
        budget=budget,
        grower=_typed(stage.get("grower", raw.get("grower", DEFAULTS["grower"]))),
        transfer=_typed(stage.get("transfer", raw.get("transfer", DEFAULTS["transfer"]))),
        init=stage.get("init"),
        runner=runner,
    )


def _merged(base: Any, override: Any) -> Any:
    """Merge dicts key by key, as mmengine's configs inherit; anything else replaces."""
    if not isinstance(base, Mapping) or not isinstance(override, Mapping):
        return override
    if "type" in override and override["type"] != base.get("type"):
        return override
    return {**base, **{k: _merged(base.get(k), v) for k, v in override.items()}}


def _typed(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value if value is not None else {"type": "none"}


def _budget(given: Mapping[str, Any], where: str, faults: Faults, *, may_be_zero: bool = False) -> tuple[str, float]:
    """The one budget of a stage."""
    found = [(k, given[k]) for k in BUDGETS if given.get(k) is not None]
    if len(found) != 1:
        faults.add(f"{where} needs exactly one of epochs, iters, samples; it has {[k for k, _ in found] or 'none'}.")
        return "iters", 0
    unit, number = found[0]
    if not isinstance(number, (int, float)) or isinstance(number, bool) or number < 0 or not (number or may_be_zero):
        faults.add(f"{where}.{unit}: {number!r} is not a positive number.")
        return "iters", 0
    return unit, number


def _individual(given: Any, faults: Faults) -> tuple[str, float] | None:
    """The budget of members trained alone: ``dict(budget='chain')`` is each member's own in the chain."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or set(given) - {*BUDGETS, "budget"}:
        faults.add(
            f"individual: {given!r} is none of dict(epochs=...), dict(iters=...), dict(samples=...), "
            "dict(budget='chain')."
        )
        return None
    if given.get("budget") == "chain":
        return "chain", 0
    return _budget(given, "individual", faults)


def _check_types(raw: Mapping[str, Any], stages: Sequence[StageConfig], faults: Faults) -> None:
    """Check every plug-in the config names, and its arguments, without building it."""
    checks = [(PARADIGMS, "paradigm", raw.get("paradigm"))]
    for i, stage in enumerate(stages):
        checks += [
            (GROWERS, f"grower (chain.{i})", stage.grower),
            (TRANSFERERS, f"transfer (chain.{i})", stage.transfer),
        ]
    seen: list[tuple[Any, Any]] = []
    for registry, where, value in checks:
        if value is None or (registry, value) in seen:
            continue
        seen.append((registry, value))
        if not isinstance(value, Mapping) or "type" not in value:
            faults.add(f"{where}: {value!r} is not a dict(type=..., ...).")
            continue
        for fault in registry.signature_faults(dict(value)):
            faults.add(f"{where}: {fault}")


def _check_numbers(raw: Mapping[str, Any], faults: Faults) -> None:
    for key in set(raw.get("checkpoint") or {}) - {"interval", "keep"}:
        faults.unknown("checkpoint.", key, {"interval", "keep"})
    numbers = {
        "seed": 0,
        "evaluations": 1,
        "checkpoint.interval": 1,
        "checkpoint.keep": 1,
        "train_dataloader.batch_size": 1,
    }
    for key, least in numbers.items():
        head, _, tail = key.partition(".")
        value = raw.get(head)
        value = value.get(tail) if tail and isinstance(value, Mapping) else value
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            faults.add(f"{key}: {value!r} is not a whole number of at least {least}.")
