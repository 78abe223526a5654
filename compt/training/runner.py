"""The only file that builds an mmengine Runner: a stage as an ordinary Runner config, and its
run.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from compt.config import ChainConfig, StageConfig
from compt.config.file import listed
from compt.errors import TrainingError
from compt.files import GROWN_OPTIMIZER, NEW, not_written
from compt.growth.optimizer_state import GrownOptions
from compt.planning.planner import StagePlan
from compt.training.distributed import wrapper
from compt.training.hooks import ProgressHook, Report
from compt.training.loops import TrainLoop, stage_model
from compt.training.optim import named_state

IMPORTS = [
    "compt.training.stage",
    "compt.training.loops",
    "compt.training.hooks",
    "compt.training.optim",
]
LOG_INTERVAL = 10
SMOOTHED = r"^(train/)?(loss|(task|transfer)/.+|grad_norm)$|^(train/|val/)?(data_)?time$"
"""What logs average over a window. Held-out losses are not in it; by mmengine's own pattern they
are.
"""


@dataclass(frozen=True)
class StageResult:
    """A trained student, the held-out figures on the way, and the seconds its training took."""

    student: nn.Module
    curve: list[dict[str, Any]]
    seconds: float
    broken: int
    """Training samples that could not be read, and were replaced by others."""
    iters: int
    """Iterations that were trained; fewer than planned where a rule ended the stage."""
    stopped: str
    """Why the stage ended before its budget was spent, '' where it did not."""
    optimizer: Mapping[str, Tensor]
    """What its optimizer remembers; see :func:`compt.training.optim.named_state`."""


class StageRunner(Runner):
    """mmengine's Runner, with its log in files only: the terminal belongs to the chain's
    progress.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger without its console handler."""
        logger = super().build_logger(*args, **kwargs)
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and not isinstance(
                handler, logging.FileHandler
            ):
                logger.removeHandler(handler)
        return logger

    def train(self) -> nn.Module:
        """Train, then close the log: a chain has many stages."""
        try:
            return super().train()
        finally:
            for handler in list(self.logger.handlers):
                handler.close()
                self.logger.removeHandler(handler)

    def dump_config(self) -> None:
        """Do nothing: the chain has written the stage's config.py."""


def stage_config(
    config: ChainConfig,
    stage: StageConfig,
    plan: StagePlan,
    folder: Path,
    *,
    init: Path | None,
    teacher: Mapping[str, Any] | None,
    launcher: str = "none",
    stop: Mapping[str, Any] | None = None,
    grown: bool = False,
) -> Config:
    """Write one stage as a Runner config that can be read, rerun and debugged alone.

    Args:
        folder: of the stage, its work_dir.
        init: weights to start from.
        teacher: ``dict(name, model, weights)`` of the member before, None without one.
        launcher: as of mmengine.
        stop: the rule that may end the stage before its budget is spent.
        grown: whether the weights to start from are grown.
    """
    given = {key: value for key, value in stage.runner.items() if value is not None}
    if grown:
        given |= _grown(stage.grown, given, folder)
    interval = max(1, min(LOG_INTERVAL, plan.iters // 10))
    imports = (config.raw.get("custom_imports") or {}).get("imports", [])
    content = {
        "custom_imports": {"imports": [*IMPORTS, *listed(imports)]},
        "default_scope": config.raw.get("default_scope", "mmengine"),
        "experiment_name": f"{folder.parent.name}_{folder.name}_{time.time_ns()}",
        "work_dir": str(folder),
        "launcher": launcher,
        "randomness": {"seed": config.seed},
        "model": {
            "type": "ComptStageModel",
            "paradigm": config.paradigm,
            "member": {"name": stage.member.name, "model": stage.member.model},
            "init": None if init is None else str(init),
            "teacher": teacher,
            "transfer": stage.transfer if teacher is not None else None,
            "performance": stage.performance,
            "seed": config.seed + plan.index,
        },
        **_loops(config, plan, given, stop),
        **_logs(interval, given.pop("default_hooks", {})),
        **(wrapper() if launcher != "none" else {}),
    }
    return Config({**content, **given})


def _grown(options: GrownOptions, given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The keys that a grown member changes: its learning rate, and the hook for what is not in its
    weights.
    """
    changed: dict[str, Any] = {}
    wrapper = given["optim_wrapper"]
    if options.lr_mult != 1:
        optimizer = {**wrapper["optimizer"], "lr": options.lr_mult * wrapper["optimizer"]["lr"]}
        changed["optim_wrapper"] = {**wrapper, "optimizer": optimizer}
    hook = {
        **({"state": str(folder / GROWN_OPTIMIZER)} if options.optimizer_state else {}),
        **(
            {"new": str(folder / NEW), "ratio": options.new_ratio} if options.new_ratio != 1 else {}
        ),
    }
    if hook:
        changed["custom_hooks"] = [
            *listed(given.get("custom_hooks")),
            {"type": "ComptGrownHook", **hook},
        ]
    return changed


def _loops(
    config: ChainConfig, plan: StagePlan, given: dict[str, Any], stop: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Training and evaluation: loops, data, optimizer and schedules, taken out of what is given."""
    loader = given.pop("train_dataloader")
    optim = {
        "type": "OptimWrapper",
        "constructor": "ComptOptimWrapperConstructor",
        **given.pop("optim_wrapper"),
    }
    return {
        "train_dataloader": loader,
        "train_cfg": {
            "type": "ComptTrainLoop",
            "max_iters": plan.iters,
            "eval_iters": _points(plan.iters, config.evaluations),
            "save_interval": config.checkpoint["interval"],
            "keep": config.checkpoint["keep"],
            "check_interval": LOG_INTERVAL if torch.cuda.is_available() else 1,
            "stop": stop,
        },
        "val_dataloader": {
            "batch_size": 2 * loader["batch_size"],
            "num_workers": 0,
            **given.pop("val_dataloader", {}),
        },
        "val_cfg": {"type": "ComptEvalLoop"},
        "val_evaluator": given.pop("val_evaluator", []),
        "optim_wrapper": optim,
        "param_scheduler": _schedulers(given.pop("param_scheduler", []), plan.iters),
    }


def _logs(interval: int, hooks: Mapping[str, Any]) -> dict[str, Any]:
    """What is written while a stage trains, and how often."""
    return {
        "default_hooks": {
            "runtime_info": {"type": "ComptRuntimeInfoHook", "interval": interval},
            "logger": {"type": "LoggerHook", "interval": interval, "log_metric_by_epoch": False},
            **hooks,
            "checkpoint": None,  # compt's own loop saves, and seeds its samplers
            "sampler_seed": None,
        },
        "log_processor": {"by_epoch": False, "window_size": interval, "mean_pattern": SMOOTHED},
        "visualizer": {
            "type": "Visualizer",
            "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
        },
    }


def _points(iters: int, evaluations: int) -> list[int]:
    """Iterations at which to evaluate: equal parts of the stage, the last at its end."""
    return sorted({max(1, round(iters * (i + 1) / evaluations)) for i in range(evaluations)})


def _schedulers(given: Any, iters: int) -> list[dict[str, Any]]:
    """Turn schedules written as fractions of the stage into iterations; whole numbers stay as they
    are.
    """
    schedulers = []
    for one in listed(given):
        absolute = {
            k: round(v * iters)
            if k in ("begin", "end", "T_max", "total_iters") and isinstance(v, float)
            else v
            for k, v in one.items()
        }
        begin, end = absolute.get("begin", 0), absolute.get("end", iters)
        if end <= begin:  # a warm-up shorter than one iteration
            continue
        if absolute["type"] == "CosineAnnealingLR":
            absolute.setdefault("T_max", end - begin)
        schedulers.append({**absolute, "begin": begin, "end": end, "by_epoch": False})
    return schedulers


def run_stage(config: Config, report: Report) -> StageResult:
    """Train one stage, or what is left of it.

    Raises:
        TrainingError: it cannot go on; what it saved is kept.
    """
    config = Config(config.to_dict())
    iters = config.train_cfg["max_iters"]
    import_modules_from_strings(config.custom_imports["imports"])
    try:
        runner = StageRunner.from_cfg(config)
        runner.register_hook(ProgressHook(report, max(1, min(LOG_INTERVAL, iters // 20))))
        runner.train()
    except OSError as error:  # from loggers: compt's own files have their own errors
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise not_written(Path(config.work_dir) / (error.filename or "log"), error) from error
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"Out of memory: {error}",
            where=config.work_dir,
            do="Lower train_dataloader.batch_size or use gradient accumulation.",
        ) from error
    loop = runner.train_loop
    assert isinstance(loop, TrainLoop)
    broken = getattr(loop.dataset, "broken_count", 0)
    student = stage_model(runner).student
    memory = named_state(student, runner.optim_wrapper.optimizer)
    return StageResult(student, loop.curve, loop.seconds, broken, loop.iter, loop.stopped, memory)
