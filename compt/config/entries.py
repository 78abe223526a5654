"""Declare what entries of mmengine's dicts may be, where compt knows them.

A class here stands for a dict, and each annotation for an entry that the dict may have. All other
entries go to mmengine as they are: building the parts finds what is wrong with them.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from compt.config.faults import Faults
from compt.config.keys import listed
from compt.registry.arguments import shown
from compt.registry.values import Range, ValueOptions, as_declared, names_a_type, problem_of

MAX_BATCH = 10**6
MAX_WORKERS = 1024
Share = Annotated[float, Range(minimum=0)]
Length = Annotated[float, Range(positive=True)]
Factor = Annotated[float, Range(positive=True, maximum=1)]
"""What a rate is divided by again once a schedule is over."""
SPAN = ("begin", "end")
LENGTHS = (*SPAN, "T_max", "total_iters", "step_size", "total_steps", "milestones", "periods")
"""Arguments of schedules that are iterations, or as floats fractions of the stage."""


class Loader:
    """A dataloader."""

    batch_size: Annotated[int, Range(minimum=1, maximum=MAX_BATCH)]
    num_workers: Annotated[int, Range(minimum=0, maximum=MAX_WORKERS)]
    dataset: Mapping[str, Any] | None
    prefetch_factor: Annotated[int, Range(minimum=1, maximum=MAX_BATCH)] | None
    timeout: Annotated[float, Range(minimum=0)]
    pin_memory: bool
    persistent_workers: bool
    drop_last: bool


class OptimWrapper:
    """The wrapper of an optimizer."""

    type: str
    constructor: str
    optimizer: Mapping[str, Any]
    paramwise_cfg: Mapping[str, Any] | None
    clip_grad: Mapping[str, Any] | None
    accumulative_counts: Annotated[int, Range(minimum=1, maximum=10**9)]


class ClipGrad:
    """How gradients are clipped."""

    type: Literal["norm", "value"]
    max_norm: Annotated[float, Range(positive=True)]
    norm_type: Annotated[float, Range(positive=True)] | Literal["inf"]
    clip_value: Annotated[float, Range(positive=True)]
    error_if_nonfinite: bool
    foreach: bool | None


class Optimizer:
    """An optimizer, whichever it is."""

    lr: Annotated[float, Range(minimum=0)]
    weight_decay: Annotated[float, Range(minimum=0)]
    betas: Sequence[Annotated[float, Range(minimum=0, maximum=1)]]
    amsgrad: bool
    nesterov: bool
    maximize: bool
    fused: bool | None
    foreach: bool | None
    capturable: bool
    differentiable: bool


class Schedule:
    """A schedule of mmengine, by iteration."""

    type: str
    begin: Share
    end: Length
    T_max: Length
    total_iters: Length
    eta_min: Share
    eta_min_ratio: Share
    gamma: Share
    factor: Factor
    start_factor: Factor
    end_factor: Share
    power: Share
    step_size: Length
    total_steps: Length
    milestones: Sequence[Share]
    periods: Sequence[Length]
    by_epoch: bool
    convert_to_iter_based: bool
    verbose: bool


class Env:
    """What mmengine sets in the process before it trains."""

    cudnn_benchmark: bool
    mp_cfg: Mapping[str, Any]
    dist_cfg: Mapping[str, Any]
    resource_limit: Annotated[int, Range(minimum=1, maximum=2**31 - 1)]


class Multiprocessing:
    """How processes are started."""

    mp_start_method: Literal["fork", "spawn", "forkserver"]
    opencv_num_threads: Annotated[int, Range(minimum=0, maximum=MAX_WORKERS)]


class LogProcessor:
    """What makes the lines of a log."""

    window_size: Annotated[int, Range(minimum=1)]
    num_digits: Annotated[int, Range(minimum=0, maximum=100)]
    by_epoch: bool
    custom_cfg: Sequence[Mapping[str, Any]] | None
    log_with_hierarchy: bool
    mean_pattern: str


class Visualizer:
    """What writes logs."""

    type: str
    vis_backends: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None
    save_dir: str | Path | None
    name: str


def check_entries(
    value: Mapping[str, Any], declared: type, name: str, faults: Faults, *, closed: bool = False
) -> None:
    """Note every entry of a dict that is not as declared.

    Args:
        value: the dict.
        declared: a class of this module.
        name: key of the dict.
        faults: where to note them.
        closed: whether mmengine ignores all other entries, so that they are faults.
    """
    hints = typing.get_type_hints(declared, include_extras=True)
    for entry, content in value.items():
        if entry not in hints:
            if closed:
                faults.unknown(f"{name}.", str(entry), hints)
        elif problem := _problem(content, hints[entry]):
            faults.add(f"{name}.{entry}: {shown(content)} {problem}")


def _problem(value: Any, annotation: Any) -> str:
    """Say what is wrong with an entry, which goes to mmengine in the type that it is written in."""
    if problem := problem_of(value, annotation, ValueOptions()):
        return problem
    is_as_written = type(as_declared(value, annotation)) is type(value)
    return "" if is_as_written else "is not written as a whole number."


def check_loader(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note entries of a dataloader that cannot be."""
    check_entries(value, Loader, name, faults)
    _check_typed(value.get("dataset"), f"{name}.dataset", faults)


def check_optim_wrapper(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note entries of an optimizer wrapper, and of what stands in it, that cannot be."""
    check_entries(value, OptimWrapper, name, faults)
    inner = (("optimizer", Optimizer), ("clip_grad", ClipGrad))
    for entry, declared in inner:
        if isinstance(value.get(entry), Mapping):
            check_entries(value[entry], declared, f"{name}.{entry}", faults)
    _check_typed(value.get("optimizer"), f"{name}.optimizer", faults)


def check_schedule(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note entries of a schedule that cannot be, and one that ends before it begins."""
    num_noted = faults.num_noted
    check_entries(value, Schedule, name, faults)
    if faults.num_noted == num_noted:
        _check_fractions(value, name, faults)
    begin, end = value.get("begin", 0), value.get("end")
    if faults.num_noted > num_noted:
        return
    if isinstance(begin, float) and begin == 1:
        faults.add(f"{name}.begin: {begin!r} is the end of the stage, so that it never runs.")
    elif end is not None and (type(begin) is type(end) or begin == 0) and end <= begin:
        faults.add(f"{name}: it ends at {end!r} and begins at {begin!r}, so that it never runs.")


def unmatched_keys(optim_wrapper: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the parts of names with their own rate that no parameter of a member has.

    Args:
        optim_wrapper: of the member.
        names: of its parameters.
    """
    paramwise = optim_wrapper.get("paramwise_cfg") or {}
    trained = [*(f"student.{name}" for name in names), "transfer."]
    keys = paramwise.get("custom_keys") or {}
    return [key for key in keys if not any(key in name for name in trained)]


def behind_the_end(schedules: Any, iters: int) -> list[str]:
    """Say which schedules lead on behind the end of a stage, so that it does not see all of them.

    Args:
        schedules: config of one or several.
        iters: of the stage.
    """
    lines = []
    for schedule in listed(schedules):
        for entry in ("end", "milestones"):
            late = [
                length
                for length in listed(schedule.get(entry))
                if isinstance(length, int) and length > iters
            ]
            if late and iters:
                shown_lengths = ", ".join(map(str, late))
                lines.append(
                    f"{schedule['type']} has {entry} {shown_lengths}, and the stage ends at {iters}"
                )
    return lines


def _check_fractions(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    for entry in value.keys() & set(LENGTHS):
        for length in listed(value[entry]):
            if isinstance(length, float) and length > 1:
                faults.add(
                    f"{name}.{entry}: {length!r} is no fraction of the stage, 0.0 to 1.0; "
                    "iterations are whole numbers."
                )


def check_env(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note what mmengine would not set in the process, or could not."""
    check_entries(value, Env, name, faults, closed=True)
    processes = value.get("mp_cfg")
    if isinstance(processes, Mapping):
        check_entries(processes, Multiprocessing, f"{name}.mp_cfg", faults, closed=True)


def _check_typed(value: Any, name: str, faults: Faults) -> None:
    """Note a dict that says not what it is the config of."""
    if isinstance(value, Mapping) and not names_a_type(value.get("type")):
        faults.add(f"{name}: {shown(value)} is not a dict(type=..., ...).")
