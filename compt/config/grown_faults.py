"""Judge what a config says of a hop: rates and states that a grown member takes over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compt.config.faults import Faults
from compt.config.keys import listed
from compt.config.rates import decay_begin, is_warmup, plateau_fault
from compt.growth.optimizer_state import CARRIED

if TYPE_CHECKING:
    from compt.config.schema import StageConfig


def check_hop(
    index: int, source: StageConfig, target: StageConfig, faults: Faults, *, has_alone: bool
) -> None:
    """Note learning rates and optimizer states that cannot be taken over in a hop.

    Args:
        index: of the target.
        source: the member before.
        target: the grown member.
        faults: where to note them.
        has_alone: whether the config says how long a member alone is trained.
    """
    _check_rate(index, target, faults, has_alone)
    _check_warmup(index, target, faults)
    _check_decay(index, target, faults)
    if target.grown.optimizer_state:
        _check_state(index, source, target, faults)


def _check_rate(index: int, target: StageConfig, faults: Faults, has_alone: bool) -> None:
    rate = target.grown.lr_mult
    own = _optimizer(target).get("lr")
    if rate != 1 and not isinstance(own, (int, float)):
        faults.add(
            f"chain.{index}: grown.lr_mult needs the member's own learning rate, "
            "optim_wrapper.optimizer.lr."
        )
    if isinstance(rate, Mapping) and not has_alone:
        faults.add(
            f"chain.{index}: grown.lr_mult gives rates by the share of the budget alone, and "
            "there is none. Give one, for example individual=dict(epochs=10)."
        )


def _check_warmup(index: int, target: StageConfig, faults: Faults) -> None:
    """Note a warm-up of a grown member that cannot be, or leaves no plateau."""
    share = target.grown.warmup
    if share is None:
        return
    schedules = listed(target.param_scheduler)
    if share and not (schedules and is_warmup(schedules[0])):
        faults.add(
            f"chain.{index}: grown.warmup changes how long the warm-up of param_scheduler is, and "
            "that begins with none, as dict(type='LinearLR', start_factor=1e-3, begin=0.0, "
            "end=0.05) is one."
        )
    is_judged = target.trunk and target.grown.decay and not plateau_fault(schedules)
    if is_judged and (fault := plateau_fault(target.as_grown.param_scheduler)):
        faults.add(
            f"chain.{index}: grown.warmup={share!r} leaves no plateau to grow from: {fault}."
        )


def _check_decay(index: int, target: StageConfig, faults: Faults) -> None:
    """Note a decay to leave out that is not there, and one without which nothing is delivered."""
    if target.grown.decay:
        return
    if decay_begin(target.param_scheduler) is None:
        faults.add(
            f"chain.{index}: grown.decay=False leaves out the decay of param_scheduler, and that "
            "ends with none, as dict(type='CosineAnnealingLR', eta_min=0.0, begin=0.8, end=1.0) "
            "is one."
        )
    elif decay_begin(target.as_grown.param_scheduler) is not None:
        faults.add(
            f"chain.{index}: grown.decay=False leaves out the last entry of param_scheduler, and "
            "the one before it lets the rate fall too. Give one decay, as the last entry."
        )
    elif target.as_grown.average is None:
        faults.add(
            f"chain.{index}: grown.decay=False would deliver weights of the full rate. Give an "
            "average in their place: grown=dict(decay=False, average=dict(type='ema', "
            "half_life=0.1))."
        )


def _check_state(index: int, source: StageConfig, target: StageConfig, faults: Faults) -> None:
    pair = _optimizer(source), _optimizer(target)
    kinds = [optimizer.get("type") for optimizer in pair]
    amsgrad = [optimizer.get("amsgrad", False) for optimizer in pair]
    if kinds[0] != kinds[1] or kinds[0] not in CARRIED or amsgrad[0] != amsgrad[1]:
        difference = ", with and without amsgrad" if amsgrad[0] != amsgrad[1] else ""
        faults.add(
            f"chain.{index}: grown.optimizer_state needs the same optimizer in both members, one "
            f"of {', '.join(CARRIED)}; they have {kinds[0]} and {kinds[1]}{difference}."
        )
    # A member that is given may bring the state of its plateau along.
    if not (source.amount[1] or source.trunk):
        faults.add(
            f"chain.{index}: grown.optimizer_state: the member before is not trained, so it has no "
            "state."
        )


def _optimizer(stage: StageConfig) -> Mapping[str, Any]:
    optimizer = stage.optim_wrapper.get("optimizer")
    return optimizer if isinstance(optimizer, Mapping) else {}
