"""One stage of a chain as an ordinary mmengine Runner config, named key by key."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.pretty import pretty_repr

from compt.config import ChainConfig, StageConfig
from compt.config.keys import listed
from compt.config.parallel import Sharded
from compt.config.stopping import stopping_config
from compt.config.taken_over import short
from compt.files import GROWN_OPTIMIZER, NEW
from compt.interfaces import RunLabels
from compt.planning.plans import StagePlan
from compt.registry.registry import short_name
from compt.training.averaging import average_hook
from compt.training.distributed import wrapper
from compt.training.schedules import in_iterations, scaled
from compt.training.tracking_tools import labelled, registering
from compt.writing import atomic

IMPORTS = [
    "compt.training.stage",
    "compt.training.loops",
    "compt.training.evaluation",
    "compt.training.hooks",
    "compt.training.optim",
    "compt.training.averaging",
]
"""Modules that register what a stage's config names."""
LOG_INTERVAL = 10
SMOOTHED = r"^(train/)?(loss|(task|transfer)/.+|grad_norm)$|^(train/|val/)?(data_)?time$"
"""What logs average over a window.

Validation losses are not in it; by mmengine's own pattern they are, and the last of a stage would
be logged as a mean over earlier ones.
"""


def stage_config(
    config: ChainConfig,
    stage: StageConfig,
    plan: StagePlan,
    folder: Path,
    *,
    init: Path | None,
    teacher: Mapping[str, Any] | None,
    launcher: str = "none",
    individual: bool = False,
    grown: bool = False,
) -> Config:
    """Write one stage as a Runner config that can be read, rerun and debugged alone.

    Args:
        config: of the chain.
        stage: which of its stages.
        plan: of the stage.
        folder: of the stage, its work_dir.
        init: weights to start from.
        teacher: ``dict(name, model, weights)`` of the member before, None without one.
        launcher: as of mmengine.
        individual: whether the member is trained alone; then no rule ends it before its budget.
        grown: whether the weights to start from are grown.
    """
    stage = stage.as_grown if grown else stage
    content = {
        "custom_imports": {"imports": _imports(config)},
        "default_scope": config.default_scope,
        # Runners that share a name share logger and MessageHub, so that a second one would go on
        # from the first one's iteration.
        "experiment_name": f"{folder.parent.name}_{folder.name}_{time.time_ns()}",
        "work_dir": str(folder),
        "launcher": launcher,
        "randomness": {"seed": config.seed},
        "model": _model(config, stage, plan, init, teacher),
        "train_dataloader": stage.train_dataloader,
        "train_cfg": _train_loop(config, stage, plan, individual),
        "val_dataloader": _val_dataloader(config, stage),
        "val_cfg": {"type": "ComptEvalLoop"},
        "val_evaluator": listed(config.val_evaluator),
        "optim_wrapper": _optim_wrapper(stage, plan, grown),
        "param_scheduler": _schedules(stage, plan, grown),
        "custom_hooks": _hooks(config, stage, plan, folder, grown),
        **_wrapper(config, plan, launcher),
        **({"env_cfg": config.env_cfg} if config.env_cfg is not None else {}),
    }
    mode = "individual" if individual else "chain"
    paradigm = short_name(config.paradigm["type"])
    labels = RunLabels(folder.absolute().parent.name, stage.name, mode, paradigm, folder)
    return Config(content | _logging(config, plan, content["experiment_name"], labels))


def _imports(config: ChainConfig) -> list[str]:
    """Return the modules that register what the config of a stage names."""
    trackers = registering(listed((config.visualizer or {}).get("vis_backends")))
    return [*IMPORTS, *listed(config.custom_imports.imports), *trackers]


def write_config(config: Config, path: Path) -> None:
    """Write a config as Python, in the order of its keys."""
    # mmengine's own dump formats with yapf, which takes longer than a small stage.
    lines = [f"{name} = {pretty_repr(value, max_width=88)}\n" for name, value in config.items()]
    with atomic(path) as file:
        file.write_text("".join(lines), encoding="utf-8")


def _model(
    config: ChainConfig,
    stage: StageConfig,
    plan: StagePlan,
    init: Path | None,
    teacher: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the student with its teacher, as one model."""
    return {
        "type": "ComptStageModel",
        "paradigm": config.paradigm,
        "member": {"name": stage.name, "model": stage.model},
        "init": None if init is None else str(init),
        "teacher": teacher,
        "transfer": stage.transfer if teacher is not None else None,
        "performance": stage.performance.to_dict(),
        "layouts": config.layouts,
        "seed": config.seed + plan.index,
        **_frozen(plan),
    }


def _frozen(plan: StagePlan) -> dict[str, Any]:
    """Return what is not trained, with the iteration at which that ends, if it does."""
    if plan.frozen is None:
        return {}
    ends = {"until": plan.frozen.iters} if plan.frozen.iters < plan.iters else {}
    return {"frozen": {"params": list(plan.frozen.names), **ends}}


def _val_dataloader(config: ChainConfig, stage: StageConfig) -> dict[str, Any]:
    """Return loader options for the splits to validate on.

    Without gradients there is room for twice the batch.
    """
    return {"batch_size": 2 * stage.batch_size, "num_workers": 0, **config.val_dataloader}


def _train_loop(
    config: ChainConfig, stage: StageConfig, plan: StagePlan, individual: bool
) -> dict[str, Any]:
    return {
        "type": "ComptTrainLoop",
        "max_iters": plan.iters,
        "eval_iters": evaluation_iters(plan.iters, config.evaluations),
        "save_interval": config.checkpoint.interval,
        "keep": config.checkpoint.keep,
        "asynchronous": config.checkpoint.asynchronous,
        # Reading the loss waits for a GPU, so it is not looked at in every iteration there.
        "check_interval": LOG_INTERVAL if torch.cuda.is_available() else 1,
        "stop": None if individual else stopping_config(stage.stopping),
        "guard": stage.guard.to_dict(),
        **({} if plan.plateau_iter is None else {"plateau_iter": plan.plateau_iter}),
    }


def _optim_wrapper(stage: StageConfig, plan: StagePlan, grown: bool) -> dict[str, Any]:
    """Return the optimizer, with a grown member's own learning rate and those by width."""
    content = {
        "type": "OptimWrapper",
        "constructor": "ComptOptimWrapperConstructor",
        **stage.optim_wrapper,
    }
    if grown and plan.lr_mult != 1:
        optimizer = content["optimizer"]
        content["optimizer"] = {**optimizer, "lr": plan.lr_mult * optimizer["lr"]}
    factors = plan.width_rates.factors if plan.width_rates else {}
    if factors:
        content["rate_factors"] = {f"student.{name}": rate for name, rate in factors.items()}
    return content


def _hooks(
    config: ChainConfig, stage: StageConfig, plan: StagePlan, folder: Path, grown: bool
) -> list[dict[str, Any]]:
    """Return the config's own hooks, then those of the options of compt."""
    average = average_hook(stage.average, plan.iters)
    return [*listed(config.custom_hooks), *average, *_grown_hook(stage, plan, folder, grown)]


def _grown_hook(
    stage: StageConfig, plan: StagePlan, folder: Path, grown: bool
) -> list[dict[str, Any]]:
    """Return the hook for what a grown member takes along beside its weights, if there is any."""
    if not grown:
        return []
    options: dict[str, Any] = {}
    if stage.grown.optimizer_state:
        options["state"] = str(folder / GROWN_OPTIMIZER)
    if stage.grown.has_rate_of_new:
        options |= {"new": str(folder / NEW), "ratio": stage.grown.new_ratio(plan.lr_mult)}
    if stage.grown.new_warmup is not None:
        options["warmup_iters"] = max(1, round(stage.grown.new_warmup * plan.iters))
    return [{"type": "ComptGrownHook", **options}] if options else []


def _schedules(stage: StageConfig, plan: StagePlan, grown: bool) -> list[dict[str, Any]]:
    """Return the schedules in iterations, with a grown member's own peak."""
    schedules = listed(stage.param_scheduler)
    if grown and plan.lr_mult != 1:
        schedules = scaled(schedules, plan.lr_mult)
    return in_iterations(schedules, plan.iters)


def _logging(config: ChainConfig, plan: StagePlan, name: str, labels: RunLabels) -> dict[str, Any]:
    """Return what is written while a stage of this name trains, and how often."""
    interval = config.log_interval or log_interval(plan.iters)
    processor = {"by_epoch": False, "window_size": interval, "mean_pattern": SMOOTHED}
    return {
        "default_hooks": {
            "runtime_info": {"type": "ComptRuntimeInfoHook", "interval": interval},
            **config.default_hooks,
            "logger": _logger(config.default_hooks, interval),
            "checkpoint": None,  # compt's own loop saves, and seeds its samplers
            "sampler_seed": None,
        },
        "log_processor": _filled(config.log_processor or {}, "LogProcessor", processor),
        "visualizer": _visualizer(config, name, labels),
    }


def _logger(hooks: Mapping[str, Any], interval: int) -> dict[str, Any] | None:
    if "logger" in hooks and hooks["logger"] is None:
        return None
    # By epoch it would log every evaluation of a stage at step 0.
    defaults = {"interval": interval, "log_metric_by_epoch": False}
    return _filled(hooks.get("logger", {}), "LoggerHook", defaults)


def _visualizer(config: ChainConfig, name: str, labels: RunLabels) -> dict[str, Any]:
    """Return the visualizer, which is one of its name for the whole process to mmengine."""
    if config.visualizer is not None:
        own = dict(config.visualizer)
        if "vis_backends" in own:
            own["vis_backends"] = labelled(listed(own["vis_backends"]), labels)
        return {**own, "name": f"{own['name']}_{name}"} if "name" in own else own
    backends = [{"type": "LocalVisBackend"}]
    if find_spec("tensorboard"):
        backends.append({"type": "TensorboardVisBackend"})
    return {"type": "Visualizer", "vis_backends": backends}


def _filled(config: Mapping[str, Any], kind: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with defaults for what it leaves out, if it is of mmengine's own class."""
    content = {"type": kind, **config}
    return {**defaults, **content} if short(content["type"]) == kind else content


def _wrapper(config: ChainConfig, plan: StagePlan, launcher: str) -> dict[str, Any]:
    """Return how the model is wrapped or sharded where there are several processes."""
    if isinstance(config.parallel, Sharded):
        return {"parallel": config.parallel.to_dict()}
    if launcher == "none":
        wrapping = config.model_wrapper_cfg
        return {} if wrapping is None else {"model_wrapper_cfg": wrapping}
    own = {**wrapper().get("model_wrapper_cfg", {}), **(config.model_wrapper_cfg or {})}
    # What is frozen for a while is among the parameters whose gradients are waited for.
    thaws = plan.frozen is not None and plan.frozen.iters < plan.iters
    find_unused = {"find_unused_parameters": config.find_unused_parameters or thaws}
    if not own:
        return find_unused
    return {"model_wrapper_cfg": {**find_unused, **own}}


def log_interval(iters: int) -> int:
    """Return the iterations between two of at least ten lines of the log."""
    return max(1, min(LOG_INTERVAL, iters // 10))


def evaluation_iters(iters: int, evaluations: int) -> list[int]:
    """Return the iterations at which to evaluate, evenly spaced up to the end of the stage."""
    return sorted({max(1, round(iters * (i + 1) / evaluations)) for i in range(evaluations)})
