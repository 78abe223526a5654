"""Pass on, translate or refuse mmengine's keys, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compt.config.entries import (
    LogProcessor,
    Visualizer,
    check_entries,
    check_env,
    check_loader,
    check_optim_wrapper,
    check_schedule,
)
from compt.config.faults import Faults
from compt.config.keys import Section, key, listed
from compt.config.taken_over import (
    check_default_hooks,
    check_log_processor,
    check_train_loader,
    check_val_loader,
)

TypedDict = Mapping[str, Any]
LOADING = frozenset(
    ("batch_size", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout")
)
"""Entries of a dataloader that touch no sample, given the samples of an iteration."""


LOGGING = frozenset(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint"))
"""Default hooks that touch nothing of what is trained."""


def _check_train_loader(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    check_loader(value, name, faults)
    check_train_loader(value, name, faults)


def _check_val_loader(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    check_loader(value, name, faults)
    check_val_loader(value, name, faults)


def _check_log(value: Mapping[str, Any] | None, name: str, faults: Faults) -> None:
    check_entries(value or {}, LogProcessor, name, faults)
    check_log_processor(value, name, faults)


def _check_visualizer(value: Mapping[str, Any] | None, name: str, faults: Faults) -> None:
    check_entries(value or {}, Visualizer, name, faults)


def _check_env(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    check_env(value, name, faults)
    processes = value.get("dist_cfg")
    if isinstance(processes, Mapping) and dict(processes) not in ({}, {"backend": "nccl"}):
        faults.add(
            f"{name}.dist_cfg: compt starts the processes itself, with NCCL on GPUs and gloo on "
            "CPUs; leave it out."
        )


def _check_evaluator(value: Any, name: str, faults: Faults) -> None:
    """Note a direction that is none."""
    for config in listed(value):
        direction = config.get("higher_is_better")
        sides = direction.values() if isinstance(direction, Mapping) else [direction]
        if not all(side is None or isinstance(side, bool) for side in sides):
            faults.add(
                f"{name}: higher_is_better={direction!r} is not True, False or a dict of them by "
                "the metric's name."
            )


def _check_schedules(value: Any, name: str, faults: Faults) -> None:
    """Note schedules that count epochs, as a stage counts iterations."""
    for index, schedule in enumerate(listed(value)):
        place = name if isinstance(value, Mapping) else f"{name}.{index}"
        check_schedule(schedule, place, faults)
        counted = [
            f"{entry}=True"
            for entry in ("by_epoch", "convert_to_iter_based")
            if schedule.get(entry) is True
        ]
        if counted:
            faults.add(
                f"{name}: {schedule['type']} counts epochs ({counted[0]}); write begin, "
                "end, T_max, milestones and other lengths as fractions of the stage, 0.0 to 1.0, "
                "or as iterations, and leave that out."
            )


@dataclass(frozen=True, kw_only=True)
class StageRunnerKeys(Section):
    """mmengine's keys that a stage may override."""

    train_dataloader: Mapping[str, Any] = key(
        {"batch_size": 128, "num_workers": 0},
        help="`batch_size` a process, `num_workers` and other arguments of torch's DataLoader; "
        "`dataset=dict(type=...)` for an mmengine data set in place of the paradigm's; "
        "`shuffle=False` for the samples in order, or `sampler=dict(type=...)` of mmengine's. "
        "Every batch is full: what an epoch leaves over is left out",
        shown_default="batch 128, no workers",
        treatment="translated",
        merged=True,
        filled=True,
        resumable_entries=LOADING,
        check=_check_train_loader,
    )
    optim_wrapper: Mapping[str, Any] = key(
        {
            "optimizer": {
                "type": "AdamW",
                "lr": 1e-3,
                "weight_decay": 0.1,
                "betas": (0.9, 0.98),
            }
        },
        help="as in mmengine; without `paramwise_cfg`, gains, biases and scalars get no weight "
        "decay, and torch's optimizers are `fused` where they can be",
        shown_default="AdamW, lr 1e-3, wd 0.1, betas (0.9, 0.98)",
        treatment="translated",
        merged=True,
        filled=True,
        check=check_optim_wrapper,
    )
    param_scheduler: Sequence[TypedDict] | TypedDict = key(
        [
            {"type": "LinearLR", "start_factor": 1e-3, "begin": 0.0, "end": 0.05},
            {"type": "CosineAnnealingLR", "eta_min": 0.0, "begin": 0.05, "end": 1.0},
        ],
        help="as in mmengine, by iteration; `begin`, `end`, `T_max`, `milestones`, `step_size`, "
        "`periods` and `total_steps` written as floats are fractions of the stage. "
        "`ReduceOnPlateauLR` counts evaluations",
        shown_default="5 % warm-up, cosine to 0",
        treatment="translated",
        merged=True,
        typed=True,
        check=_check_schedules,
    )


@dataclass(frozen=True, kw_only=True)
class RunnerKeys(StageRunnerKeys):
    """mmengine's keys that a chain may set, for all of its stages."""

    val_dataloader: Mapping[str, Any] = key(
        {},
        help="loader options of the validation splits, which are measured whole and in order",
        shown_default="batch twice the training's",
        treatment="translated",
        resumable_entries=LOADING,
        check=_check_val_loader,
    )
    val_evaluator: Sequence[TypedDict] | TypedDict = key(
        [],
        help="mmengine metrics beside the paradigm's own, on the first split; "
        "`higher_is_better=True` or `False`, or a dict of them by name, says which side is good, "
        "which a stopping rule has to know",
        shown_default="none",
        treatment="translated",
        typed=True,
        check=_check_evaluator,
    )
    default_hooks: Mapping[str, Any] = key(
        {},
        help="changes of mmengine's default hooks, None to leave one out; compt's own loop saves "
        "checkpoints and seeds samplers",
        shown_default="log every 10 iterations",
        treatment="translated",
        resumable_entries=LOGGING,
        check=check_default_hooks,
    )
    custom_hooks: Sequence[TypedDict] | TypedDict = key(
        [],
        help="as in mmengine; see [below](#hooks)",
        shown_default="none",
        treatment="passed on",
        typed=True,
    )
    visualizer: Mapping[str, Any] | None = key(
        None,
        help="as in mmengine; Weights & Biases, MLflow and SwanLab by a line each, see "
        "[trackers](trackers.md)",
        shown_default="TensorBoard and JSON logs in each stage's folder",
        treatment="passed on",
        resumable=True,
        check=_check_visualizer,
    )
    log_processor: Mapping[str, Any] | None = key(
        None,
        help="as in mmengine, by iteration",
        shown_default="means over the logging interval",
        treatment="translated",
        resumable=True,
        check=_check_log,
    )
    env_cfg: Mapping[str, Any] | None = key(
        None, help="as in mmengine", treatment="passed on", resumable=True, check=_check_env
    )
    model_wrapper_cfg: Mapping[str, Any] | None = key(
        None,
        help="wrapper of the model with several processes",
        treatment="passed on",
        typed=True,
        shown_default="DistributedDataParallel",
    )
    find_unused_parameters: bool = key(
        False, help="as in mmengine, with several processes", treatment="passed on"
    )
    default_scope: str = key(
        "mmengine",
        help="where names of mmengine's registries are looked up first",
        treatment="passed on",
    )


REFUSED: Mapping[str, str] = {
    "model": "name each member's model in chain=[dict(model=...), ...]",
    "train_cfg": "give each stage its epochs, iters or samples",
    "val_cfg": "give evaluations=N, the number of evaluations a stage",
    "test_cfg": "compt measures on the paradigm's validation splits",
    "test_dataloader": "name further splits in the paradigm's data",
    "test_evaluator": "name metrics in val_evaluator",
    "randomness": "give seed=N; every stage derives its own from it",
    "resume": "give --resume on the command line, or resume=True to compt.train",
    "load_from": "give the first member init=PATH",
    "launcher": "give --launcher on the command line",
    "log_level": "log files hold everything from INFO on",
    "experiment_name": "stages are named after their folders",
    "auto_scale_lr": "give the learning rate of your batch size",
    "data_preprocessor": "the paradigm prepares its batches",
    "vis_backends": "name them in visualizer=dict(vis_backends=[...])",
    "cfg": "a stage's config is written into its folder",
    "activation_checkpointing": "give grad_checkpointing=True",
    "sync_bn": "name the batch norm that you want in the member's model",
    "efficient_conv_bn_eval": "compt measures the models as they are",
    "tta_model": "a stage has no test loop",
    "tta_pipeline": "a stage has no test loop",
    "runner_type": "compt builds the Runner of each stage",
    "strategy": "compt trains with DistributedDataParallel; give --launcher on the command line",
}
"""mmengine's keys that a chain does not take, with what to write instead."""


def refusal(name: str) -> str:
    """Return the fault for one of mmengine's keys that a chain does not take."""
    return f"{name} is not a key of compt, but mmengine's: {REFUSED[name]}."
