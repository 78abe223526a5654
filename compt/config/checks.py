"""Checks of a config's keys and values; each notes its faults, and leaves what the others can go on
with.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

from compt.config.file import ConfigFile, listed
from compt.config.stopping import RULES, options_of
from compt.errors import Faults, did_you_mean
from compt.growth.optimizer_state import CARRIED, GrownOptions
from compt.planning.plans import sub_chain_names
from compt.registry import PluginRegistry
from compt.registry.entry_points import object_path
from compt.training.performance import ATTENTIONS, PRECISIONS

BUDGETS = ("epochs", "iters", "samples")
PERFORMANCE_KEYS = ("precision", "attention", "grad_checkpointing", "compile")
STAGE_KEYS = {
    "name",
    "model",
    "init",
    "grower",
    "transfer",
    "optim_wrapper",
    "param_scheduler",
    "train_dataloader",
    "budget",
    "grown",
    *BUDGETS,
    *PERFORMANCE_KEYS,
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
    "find_unused_parameters",
}
KEYS = {
    "paradigm",
    "chain",
    "grower",
    "transfer",
    "grown",
    "individual",
    "published",
    "seed",
    "work_dir",
    "checkpoint",
    "compare",
    "evaluations",
    "custom_imports",
    "default_scope",
    "launcher",
    *PERFORMANCE_KEYS,
    *RUNNER_KEYS,
}
UNUSED_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    "auto_scale_lr",
    "data_preprocessor",
    "vis_backends",
}
"""What configs of mmengine's libraries say, and compt says itself: a chain may have them from a
base file.
"""
DICTS = (
    "budget",
    "grown",
    "optim_wrapper",
    "train_dataloader",
    "val_dataloader",
    "default_hooks",
    "checkpoint",
    "custom_imports",
)
LISTS = ("param_scheduler", "custom_hooks")


def check_keys(file: ConfigFile, faults: Faults) -> dict[str, Any]:
    """Keep the keys that compt knows; any other that is no variable of the file itself is a fault.

    What a ``_base_`` file says for a Runner that compt does not build is left out.
    """
    raw = file.content
    for key in raw:
        if (
            key not in KEYS
            and key not in file.variables
            and not (key in file.inherited and key in UNUSED_KEYS)
        ):
            faults.unknown("", key, KEYS)
    kept = {key: value for key, value in raw.items() if key in KEYS}
    for key in ("paradigm", "chain"):
        if not kept.get(key):
            faults.add(f"{key} is missing.")
    return {key: value for key, value in kept.items() if _is_right_kind(key, value, "", faults)}


def check_stage_keys(stage: Mapping[str, Any], where: str, faults: Faults) -> dict[str, Any]:
    """Keep the keys of a stage that compt knows, with values of the right kind."""
    for key in stage:
        if key not in STAGE_KEYS:
            faults.unknown(f"{where}.", key, STAGE_KEYS)
    return {
        k: v
        for k, v in stage.items()
        if k in STAGE_KEYS and _is_right_kind(k, v, f"{where}.", faults)
    }


def _is_right_kind(key: str, value: Any, where: str, faults: Faults) -> bool:
    """Whether a key that mmengine reads holds a dict, a list of typed dicts, or a path, as it
    should.
    """
    if value is None:
        return True
    if key in DICTS and not isinstance(value, Mapping):
        faults.add(f"{where}{key}: {value!r} is not a dict.")
    elif key in LISTS and not all(
        isinstance(one, Mapping) and "type" in one for one in listed(value)
    ):
        faults.add(f"{where}{key}: {value!r} is not a list of dict(type=..., ...).")
    elif key == "work_dir" and not isinstance(value, (str, Path)):
        faults.add(f"{where}{key}: {value!r} is not a path.")
    else:
        return True
    return False


def budget(
    given: Mapping[str, Any], where: str, faults: Faults, *, may_be_zero: bool = False
) -> tuple[str, float]:
    """The one budget of a stage, as unit and number."""
    found = [(k, given[k]) for k in BUDGETS if given.get(k) is not None]
    if len(found) != 1:
        faults.add(
            f"{where} needs exactly one of epochs, iters, samples; it has {[k for k, _ in found] or 'none'}."
        )
        return "iters", 0
    unit, number = found[0]
    real = (
        isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
    )
    if real and number == 0 and may_be_zero:
        return unit, 0
    if not real or number <= 0 or (unit != "epochs" and number < 1):
        faults.add(f"{where}.{unit}: {number!r} is not a positive number.")
        return "iters", 0
    return unit, number


def stop_rule(
    given: Mapping[str, Any] | None, where: str, faults: Faults
) -> Mapping[str, Any] | None:
    """The rule that may end a stage before its budget: ``dict(type='until', metric=...,
    target=...)``.
    """
    if given is None:
        return None
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in RULES:
        known = " or ".join(map(repr, RULES))
        faults.add(f"{where}.budget: type={kind!r} is not {known}.{did_you_mean(kind, RULES)}")
        return None
    before = len(faults.found)
    for key in set(given) - {"type", *options_of(kind)}:
        faults.unknown(f"{where}.budget.", key, options_of(kind))
    if not isinstance(given.get("metric", ""), str | None):
        faults.add(
            f"{where}.budget.metric: {given['metric']!r} is not the name of a metric, as 'val/loss'."
        )
    for key in ("target", "minimum"):
        value = given.get(key, 0.0 if key == "minimum" or kind != "until" else None)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ):
            faults.add(f"{where}.budget.{key}: {value!r} is not a number.")
    check_whole(given.get("patience"), f"{where}.budget.patience", 1, faults)
    return dict(given) if len(faults.found) == before else None


def grown_options(
    given: Mapping[str, Any] | None, where: str, own: bool, faults: Faults
) -> GrownOptions:
    """How grown members are trained: ``dict(lr_mult=..., new_lr_mult=...,
    optimizer_state=...)``.
    """
    name = f"{where}.grown" if own else "grown"
    known = [field.name for field in fields(GrownOptions)]
    kept: dict[str, Any] = {}
    for key, value in (given or {}).items():
        if key not in known:
            faults.unknown(f"{name}.", key, known)
        elif key == "optimizer_state":
            if not isinstance(value, bool):
                faults.add(f"{name}.{key}: {value!r} is not True or False.")
            else:
                kept[key] = value
        elif (value is not None or key == "lr_mult") and (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 0 < value < math.inf
        ):
            faults.add(f"{name}.{key}: {value!r} is not a positive number.")
        else:
            kept[key] = value
    return GrownOptions(**kept)


def check_state(
    stages: Sequence[tuple[GrownOptions, Mapping[str, Any], float]], faults: Faults
) -> None:
    """Check, by options, optim_wrapper and budget of each stage, that learning rates and states can
    be taken over.
    """
    for i, (options, wrapper, _) in enumerate(stages[1:], start=1):
        optimizer, (_, earlier, budget) = wrapper.get("optimizer") or {}, stages[i - 1]
        if options.lr_mult != 1 and not isinstance(optimizer.get("lr"), (int, float)):
            faults.add(
                f"chain.{i}: grown.lr_mult needs the member's own learning rate, optim_wrapper.optimizer.lr."
            )
        if not options.optimizer_state:
            continue
        kinds = [one.get("type") for one in (earlier.get("optimizer") or {}, optimizer)]
        alike = [one.get("amsgrad", False) for one in (earlier.get("optimizer") or {}, optimizer)]
        if kinds[0] != kinds[1] or kinds[0] not in CARRIED or alike[0] != alike[1]:
            faults.add(
                f"chain.{i}: grown.optimizer_state needs the same optimizer in both members, one of "
                f"{', '.join(CARRIED)}; they have {kinds[0]} and {kinds[1]}"
                + (", with and without amsgrad." if alike[0] != alike[1] else ".")
            )
        if not budget:
            faults.add(
                f"chain.{i}: grown.optimizer_state: the member before is not trained, so it has no state."
            )


def individual_budget(given: Any, faults: Faults) -> tuple[str, float] | None:
    """The budget of members trained alone: ``dict(budget='chain')`` is each member's own in the
    chain.
    """
    if given is None:
        return None
    if given == {"budget": "chain"}:
        return "chain", 0
    if not isinstance(given, Mapping) or set(given) - {*BUDGETS}:
        faults.add(
            f"individual: {given!r} is none of dict(epochs=...), dict(iters=...), dict(samples=...), "
            "dict(budget='chain')."
        )
        return None
    return budget(given, "individual", faults)


def performance(
    stage: Mapping[str, Any], raw: Mapping[str, Any], where: str, faults: Faults
) -> dict[str, Any]:
    """The performance options of a stage: its own, else the chain's; those not given keep their default."""
    found = {}
    choices = {"precision": [*PRECISIONS], "attention": [*ATTENTIONS]}
    for key in PERFORMANCE_KEYS:
        given = stage if key in stage else raw
        if given.get(key) is None:
            continue
        found[key] = value = given[key]
        name = f"{where}.{key}" if given is stage else key
        known = choices.get(key)
        if known and value not in known:
            faults.add(
                f"{name}: {value!r} is none of {', '.join(map(repr, known))}.{did_you_mean(str(value), known)}"
            )
        elif (
            not known
            and not isinstance(value, bool)
            and not (key == "compile" and isinstance(value, Mapping))
        ):
            faults.add(
                f"{name}: {value!r} is not True or False"
                + (" or a dict." if key == "compile" else ".")
            )
        elif isinstance(value, Mapping):
            options = set(inspect.signature(torch.compile).parameters) - {"model"}
            for option in set(value) - options:
                faults.add(
                    f"{name}: {option!r} is no option of torch.compile.{did_you_mean(option, options)}"
                )
    compiler = found.get("compile")
    if (
        found.get("grad_checkpointing")
        and isinstance(compiler, Mapping)
        and compiler.get("backend") == "eager"
    ):
        faults.add(
            f"{where}: with backend='eager' recomputed blocks drop other units; use backend='aot_eager'."
        )
    return found


def published_figures(given: Any, members: Sequence[str], faults: Faults) -> dict[str, Any]:
    """What a publication reports for this chain: its source, and relative compute by the names of
    sub-chains.
    """
    if given is None:
        return {}
    figures = (given.get("relative_compute") or {}) if isinstance(given, Mapping) else None
    if not isinstance(figures, Mapping) or not isinstance(given.get("source", ""), str):
        faults.add(
            f"published: {given!r} is not dict(source='...', relative_compute={{'a->b': 0.5}})."
        )
        return {}
    for key in set(given) - {"source", "relative_compute"}:
        faults.unknown("published.", key, {"source", "relative_compute"})
    known = sub_chain_names(members)
    for name, value in figures.items():
        if name not in known:
            ends = ", ".join(map(repr, known)) or "nothing: it has one member"
            faults.add(
                f"published.relative_compute: {name!r} is no end of this chain, which has {ends}."
            )
        elif (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not 0 < value < math.inf
        ):
            faults.add(f"published.relative_compute: {name!r} is {value!r}, not a positive number.")
    return dict(given)


def check_schedules(given: Any, where: str, faults: Faults) -> None:
    """Note schedules that count epochs: a stage counts iterations, and knows fractions of
    itself.
    """
    for one in listed(given):
        if isinstance(one, Mapping) and one.get("by_epoch"):
            faults.add(
                f"{where}param_scheduler: {one.get('type')} counts epochs (by_epoch=True); write begin, end and T_max "
                "as fractions of the stage, 0.0 to 1.0, or as iterations."
            )


def check_plugins(named: Sequence[tuple[PluginRegistry, str, Any]], faults: Faults) -> None:
    """Check plug-ins by their registry, key and config, with their arguments, without building
    them.
    """
    seen: list[tuple[Any, Any]] = []
    for registry, where, value in named:
        if value is None or (registry, value) in seen:
            continue
        seen.append((registry, value))
        if not isinstance(value, Mapping) or "type" not in value:
            faults.add(f"{where}: {value!r} is not a dict(type=..., ...).")
            continue
        if isinstance(value["type"], type):
            given = object_path(value["type"])
            faults.add(
                f"{where}: type is the class {given}; register it and write its name, which a resumed run can read."
            )
            continue
        for fault in registry.signature_faults(dict(value)):
            faults.add(f"{where}: {fault}")


def check_numbers(raw: Mapping[str, Any], faults: Faults) -> None:
    """Check the whole numbers of a config."""
    for key in set(raw.get("checkpoint") or {}) - {"interval", "keep"}:
        faults.unknown("checkpoint.", key, {"interval", "keep"})
    for key, least in (("seed", 0), ("evaluations", 1)):
        check_whole(raw.get(key), key, least, faults)
    if not isinstance(raw.get("compare") or False, bool):
        faults.add(f"compare: {raw['compare']!r} is not True or False.")
    for key in ("interval", "keep"):
        check_whole((raw.get("checkpoint") or {}).get(key), f"checkpoint.{key}", 1, faults)


def check_whole(value: Any, key: str, least: int, faults: Faults) -> None:
    """Note a value that is given and is no whole number of at least ``least``."""
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or value < least
    ):
        faults.add(f"{key}: {value!r} is not a whole number of at least {least}.")
