"""Declare that learning rates follow the widths of members, and say what that cannot go with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compt.config.faults import Faults
from compt.config.keys import Section, key, listed
from compt.config.rates import is_a
from compt.errors import did_you_mean

if TYPE_CHECKING:
    from compt.config.schema import StageConfig

CONSTRUCTOR = "ComptOptimWrapperConstructor"
ABSOLUTE = ("eta_min", "eta_max", "min_value")
"""Arguments of schedules that are a rate, not a share of one."""


@dataclass(frozen=True)
class RatesByWidth(Section):
    """By which member's widths the learning rates of the others are scaled."""

    base: str | None = key(
        None, help="the member whose rate is as written", shown_default="the first"
    )


def check_rates_by_width(stages: Sequence[StageConfig], faults: Faults) -> None:
    """Note what leaves stages without rates by width, once for all that share it."""
    names = [stage.name for stage in stages if stage.name]
    own = (stage for stage in stages if stage.rates_by_width is not None)
    for sentence in dict.fromkeys(fault for stage in own for fault in _faults(stage, names)):
        faults.add(sentence)


def _faults(stage: StageConfig, names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the rates by width of a stage, which has some."""
    base = stage.rates_by_width.base if stage.rates_by_width else None
    if base is not None and base not in names:
        members = ", ".join(map(repr, names))
        yield (
            f"rates_by_width.base: {base!r} is no member of the chain, which has {members}."
            f"{did_you_mean(base, names)}"
        )
    constructor = stage.optim_wrapper.get("constructor", CONSTRUCTOR)
    if constructor != CONSTRUCTOR:
        yield (
            f"rates_by_width and optim_wrapper.constructor={constructor!r} both say which "
            "parameter has which rate; leave one of them out."
        )
    for schedule in filter(_sets_rates, listed(stage.param_scheduler)):
        for name in ABSOLUTE:
            if schedule.get(name):
                yield (
                    f"rates_by_width gives parameters several rates, and {name}="
                    f"{schedule[name]!r} of {schedule['type']} in param_scheduler is one for all "
                    "of them; use a schedule in shares of the rate, as with eta_min_ratio, or "
                    "leave out rates_by_width."
                )


def _sets_rates(schedule: Mapping[str, Any]) -> bool:
    """Tell whether it is learning rates that a schedule changes, not momentum or weight decay."""
    from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin

    is_of_momentum = is_a(schedule, MomentumSchedulerMixin)
    return not is_of_momentum and schedule.get("param_name", "lr") == "lr"
