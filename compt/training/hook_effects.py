"""Judge and follow what hooks of mmengine do to a stage, its end and its weights.

A hook may put other weights in the place of the trained ones while they are measured, as EMAHook
does. A stage delivers the weights that are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import inf
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    EarlyStoppingHook,
    EMAHook,
    Hook,
    NaiveVisualizationHook,
    NPUProfilerHook,
    ParamSchedulerHook,
    PrepareTTAHook,
    ProfilerHook,
)
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from compt.errors import ConfigError
from compt.training.sharding import any_sharded, local
from compt.training.stage import stage_model

NO_TESTS = "it acts in tests, which a stage has none of; compt measures on validation splits"
REFUSED: Mapping[type[Hook], str] = {
    CheckpointHook: "compt saves what --resume goes on from: checkpoint=dict(interval=, keep=). A "
    "stage delivers its last weights; stopping=dict(type='gain') or EarlyStoppingHook ends it in "
    "time, EMAHook delivers an average",
    DistSamplerSeedHook: "batches follow from the seed and the iteration; leave it out",
    ParamSchedulerHook: "it is a default hook, and a second one would step each schedule twice",
    PrepareTTAHook: NO_TESTS,
    NaiveVisualizationHook: NO_TESTS,
}
"""Hooks that a config cannot add, with what to do."""
BY_EPOCH: Mapping[str, str] = {
    "by_epoch": "by_epoch=False",
    "log_metric_by_epoch": "log_metric_by_epoch=False",
    "begin_epoch": "begin_iter",
}
"""Attributes of hooks that count epochs, with what to give."""
TB = "torch_tb_profiler"
TRACES = ("log_trace", "tb_trace")
SWAPPED_AT = ("before_val", "before_val_epoch")
"""Where a hook puts in the weights to measure."""


def check_effects(
    config: Mapping[str, Any], *, iters: int, splits: Sequence[str], is_default: bool = False
) -> None:
    """Build a hook, and judge whether it would do in a stage what it says.

    Args:
        config: ``dict(type=..., ...)``.
        iters: of the stage, 0 where it is not trained.
        splits: validation splits.
        is_default: whether it replaces one of mmengine's default hooks.

    Raises:
        ConfigError: it would not.
        Exception: whatever its constructor raises.
    """
    options = {name: value for name, value in config.items() if name != "priority"}
    cls = _class_of(config)
    if not is_default:
        for refused, do in REFUSED.items():
            if issubclass(cls, refused):
                raise ConfigError(f"{cls.__name__}: {do}.")
    if cls is NPUProfilerHook and options.get("exit_after_profiling", True):
        raise ConfigError("NPUProfilerHook would end the process: give exit_after_profiling=False.")
    hook = HOOKS.build(options)
    for fault in _hook_faults(hook, iters):
        raise ConfigError(f"{type(hook).__name__}: {fault}.")
    if isinstance(hook, EarlyStoppingHook):
        check_monitored(hook.monitor, splits, type(hook).__name__)
    if isinstance(hook, EMAHook):
        model = nn.Linear(1, 1)
        average = MODELS.build(hook.ema_cfg, default_args={"model": model})
        for _ in range(2):
            average.update_parameters(model)


def averages(hooks: Iterable[Hook]) -> bool:
    """Tell whether one of these hooks delivers an average of the weights."""
    return any(isinstance(hook, EMAHook) for hook in hooks)


def averaging(configs: Iterable[Mapping[str, Any]]) -> list[type]:
    """Return the classes of the hooks that deliver an average of the weights."""
    return [cls for cls in map(_class_of, configs) if issubclass(cls, EMAHook)]


def check_averages(configs: Iterable[Mapping[str, Any]]) -> None:
    """Raise ConfigError for two averages, which would put each other's weights back."""
    names = [cls.__name__ for cls in averaging(configs)]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)}: a stage delivers one average of its weights.")


def _class_of(config: Mapping[str, Any]) -> type:
    kind = config["type"]
    cls = HOOKS.get(kind) if isinstance(kind, str) else kind
    return cls if isinstance(cls, type) else object


def _hook_faults(hook: Hook, iters: int) -> Iterator[str]:
    """Yield what a hook asks for that a stage does not have."""
    for name, instead in BY_EPOCH.items():
        if getattr(hook, name, False):
            yield f"{name} counts epochs, and a stage counts iterations: give {instead}"
    if isinstance(hook, EMAHook):
        if iters and hook.begin_iter > iters:
            yield f"begin_iter={hook.begin_iter} lies behind the stage's {iters} iterations"
        if not getattr(hook, "evaluate_on_ema", True) or getattr(hook, "evaluate_on_origin", False):
            yield "a stage measures and delivers the average: leave out evaluate_on_*"
    if isinstance(hook, ProfilerHook):
        yield from _profiler_faults(hook, iters)


def _profiler_faults(hook: ProfilerHook, iters: int) -> Iterator[str]:
    if iters and hook.profile_times > iters:
        yield f"profile_times={hook.profile_times} is more than the stage's {iters} iterations"
    trace = hook.on_trace_ready
    if isinstance(trace, Mapping) and trace.get("type") not in TRACES:
        yield f"on_trace_ready: type={trace.get('type')!r} is none of {', '.join(TRACES)}"
    elif isinstance(trace, Mapping) and trace["type"] == "tb_trace" and not find_spec(TB):
        yield f"on_trace_ready: tb_trace needs the package {TB}, which is not installed"


def check_monitored(metric: str, splits: Sequence[str], watcher: str) -> None:
    """Raise ConfigError for the name of a metric that is of no validation split."""
    prefix, _, name = metric.partition("/")
    if prefix not in splits or not name:
        known = ", ".join(f"'{split}/...'" for split in splits) or "none"
        raise ConfigError(
            f"{watcher}: monitor={metric!r} is no metric of a validation split, {known}."
        )


def early_stopping(config: Any) -> list[EarlyStoppingHook]:
    """Build the hooks of a stage's Runner config that watch a metric to end it."""
    hooks = [*filter(None, config.default_hooks.values()), *config.custom_hooks]
    return [
        HOOKS.build({name: value for name, value in hook.items() if name != "priority"})
        for hook in hooks
        if issubclass(_class_of(hook), EarlyStoppingHook)
    ]


def watchers(hooks: Iterable[Any], schedulers: Iterable[Any]) -> list[Any]:
    """Return the hooks and schedulers that act on a metric, with ``monitor`` and ``rule``."""
    stopping = [hook for hook in hooks if isinstance(hook, EarlyStoppingHook)]
    return stopping + [plan for plan in schedulers if getattr(plan, "need_val_args", False)]


def check_watched(watcher: Any, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError where what is watched is not measured, or from the wrong side.

    Args:
        watcher: one of :func:`watchers`.
        metrics: by 'split/name', with ``higher_is_better``.
    """
    name, metric, rule = type(watcher).__name__, watcher.monitor, watcher.rule
    if metric not in metrics:
        raise ConfigError(
            f"{name} watches '{metric}', which is not measured.",
            do=f"Name one of {', '.join(metrics) or 'none'}.",
        )
    higher_is_better = metrics[metric]["higher_is_better"]
    if higher_is_better is not None and higher_is_better != (rule == "greater"):
        side = "greater" if higher_is_better else "less"
        raise ConfigError(
            f"{name} takes '{metric}' for better where it is {rule}.",
            do=f"Give it rule='{side}'.",
        )


def stop_reason(runner: Runner) -> str:
    """Return why hooks have asked for the end of a stage."""
    hooks = [
        f"{hook.monitor} has not got better than {hook.best_score:g}"
        if hook.stopping_threshold is None
        else f"{hook.monitor} has reached {hook.best_score:g}"
        for hook in runner.hooks
        if isinstance(hook, EarlyStoppingHook)
    ]
    return f"EarlyStoppingHook: {', '.join(hooks)}" if hooks else "a hook asked for it"


def replay(runner: Runner, curve: Iterable[Mapping[str, Any]]) -> None:
    """Let hooks that end a stage see the evaluations so far.

    They remember them, and mmengine's checkpoints do not hold that.
    """
    for hook in runner.hooks:
        if not isinstance(hook, EarlyStoppingHook):
            continue
        hook.wait_count = 0
        hook.best_score = -inf if hook.rule == "greater" else inf
        for point in curve:
            values = {name: metric["value"] for name, metric in point["metrics"].items()}
            hook.after_val_epoch(runner, values)


def deliver(runner: Runner) -> list[str]:
    """Put into the model what its evaluations measure, and name the hooks that do it.

    A hook may say in ``delivers`` what these weights are called.

    It is for the end of a stage: the trained weights are not put back.
    """
    student, names = stage_model(runner).student, []
    for hook in runner.hooks:
        previous = checksums(student.state_dict().values())
        for method in SWAPPED_AT:
            getattr(hook, method)(runner)
        if checksums(student.state_dict().values()) != previous:
            names.append(getattr(hook, "delivers", type(hook).__name__))
    return names


@torch.no_grad()
def checksums(tensors: Iterable[Tensor]) -> list[float]:
    """Return a number for each tensor, another one where its values are others.

    Where some are sharded, every process has to call it.
    """
    every = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    if not every:
        return []
    sums = torch.stack([_checksum(local(tensor)) for tensor in every])
    if any_sharded(every):
        all_reduce(sums)
    return sums.tolist()


def _checksum(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.device.type == "mps" else torch.float64
    total = (tensor.abs() if tensor.is_complex() else tensor).sum(dtype=dtype)
    return torch.nan_to_num(total)
