"""Read in a stage's schedules where its warm-up ends, and its plateau.

Lengths are as a config writes them: floats are fractions of the stage, whole numbers iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.registry import PARAM_SCHEDULERS

from compt.config.keys import listed

DEFAULT_START = 1 / 3
"""Factor at which mmengine's linear schedules begin, where a config does not say it."""


def class_of(schedule: Mapping[str, Any]) -> Any:
    """Return the class of a schedule, None where there is none of its name."""
    kind = schedule["type"]
    if not isinstance(kind, str):
        return kind
    try:
        return PARAM_SCHEDULERS.get(kind)
    except Exception:  # mmengine imports what has dots, and a module raises what it likes
        return None


def is_a(schedule: Mapping[str, Any], *classes: type) -> bool:
    """Tell whether a schedule is of one of these classes."""
    own = class_of(schedule)
    return isinstance(own, type) and issubclass(own, classes)


# Imported where there is a schedule: mmengine.optim brings transformers, for a second.
def _is_constant(schedule: Mapping[str, Any]) -> bool:
    from mmengine.optim.scheduler import ConstantParamScheduler

    return is_a(schedule, ConstantParamScheduler)


def _is_linear(schedule: Mapping[str, Any]) -> bool:
    from mmengine.optim.scheduler import LinearParamScheduler

    return is_a(schedule, LinearParamScheduler)


def decay_begin(schedules: Any) -> float | None:
    """Return where the last schedule begins, None where there is none that lets the rate fall."""
    entries = listed(schedules)
    if not entries or _does_not_fall(entries[-1]):
        return None
    begin: float = entries[-1].get("begin", 0)
    return begin


def plateau_fault(schedules: Any) -> str:
    """Say why there is no plateau before the last decay, '' where there is one."""
    begin = decay_begin(schedules)
    if begin is None:
        return "param_scheduler ends with no decay that a plateau could lie before"
    *earlier, decay = listed(schedules)
    if not begin:
        return f"the decay of param_scheduler, {decay['type']}, begins with the stage"
    for entry in earlier:
        if _is_constant(entry):
            continue
        end = entry.get("end")
        if end is None:
            return f"{entry['type']} of param_scheduler changes the rate up to the end of the stage"
        if type(end) is type(begin) and end >= begin:
            return (
                f"the decay of param_scheduler, {decay['type']}, begins at {begin!r}, where "
                f"{entry['type']} ends ({end!r})"
            )
    return ""


def is_warmup(schedule: Mapping[str, Any]) -> bool:
    """Tell whether a schedule leads up to the rate from the begin of a stage, and then ends."""
    begins = not schedule.get("begin", 0) and schedule.get("end") is not None
    return begins and _is_linear(schedule) and _does_not_fall(schedule)


def warmup_end(schedules: Any, iters: int) -> int:
    """Return the iteration of a stage of so many at which its warm-up ends, 0 without one."""
    entries = listed(schedules)
    return iteration(entries[0]["end"], iters) if entries and is_warmup(entries[0]) else 0


def with_warmup(schedules: Any, share: float) -> list[dict[str, Any]]:
    """Return schedules whose warm-up is another share of the stage, with none at 0.

    What begins where the first entry ends begins where it ends now. Without a warm-up they stay as
    they are.
    """
    entries = [dict(entry) for entry in listed(schedules)]
    if not (entries and is_warmup(entries[0])):
        return entries
    warmup, *others = entries
    end = warmup["end"]
    for entry in others:
        begin = entry.get("begin", 0)
        if begin == end and type(begin) is type(end):
            entry["begin"] = float(share)
    return [*([{**warmup, "end": float(share)}] if share else []), *others]


def without_decay(schedules: Any) -> list[dict[str, Any]]:
    """Return schedules without the last one, if that lets the rate fall."""
    entries = [dict(entry) for entry in listed(schedules)]
    return entries if decay_begin(entries) is None else entries[:-1]


def iteration(length: float, iters: int) -> int:
    """Return a length in iterations of a stage that has so many."""
    return round(length * iters) if isinstance(length, float) else length


def _does_not_fall(schedule: Mapping[str, Any]) -> bool:
    """Tell whether a schedule only leads up to the rate, as warm-ups do."""
    if _is_linear(schedule):
        start, end = schedule.get("start_factor", DEFAULT_START), schedule.get("end_factor", 1.0)
        return bool(start <= end)
    return _is_constant(schedule)
