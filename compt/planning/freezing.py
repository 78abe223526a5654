"""Plan which parameters of a stage are frozen, and what that saves."""

from __future__ import annotations

from torch import nn

from compt.config import StageConfig
from compt.config.freezing import OLD
from compt.errors import ConfigError, located
from compt.growth.carried import carried_over, frozen_params
from compt.interfaces import Architecture, Grower, Paradigm
from compt.planning.flops import FlopCounter
from compt.planning.measure import Measured, measure_frozen
from compt.planning.plans import Frozen


def plan_frozen(
    stage: StageConfig,
    paradigm: Paradigm,
    model: nn.Module,
    measured: Measured,
    hop: tuple[Architecture, Grower] | None,
    iters: int,
    counter: FlopCounter,
) -> Frozen | None:
    """Find what a stage freezes, and count what that saves; None where it trains all.

    Args:
        stage: config of the stage.
        paradigm: of the chain.
        model: of the member, on the meta device.
        measured: what its training takes with nothing frozen.
        hop: the member before and the grower, None where nothing is grown.
        iters: of the stage.
        counter: of the plan.

    Raises:
        ConfigError: a pattern fits nothing, or nothing is left to train.
    """
    options = stage.frozen
    if options is None:
        return None
    with located(f"chain, member '{stage.name}'"):
        old: list[str] = []
        if OLD in options.patterns and hop is not None:
            old = carried_over(hop[1], hop[0], measured.arch)
        names = frozen_params(model, [p for p in options.patterns if p != OLD], old)
        if OLD in options.patterns and not set(old) & set(names):
            raise ConfigError(
                "freeze: 'old' fits nothing, as every tensor has grown wider.",
                do="Name the parameters to freeze; grown=dict(new_lr_mult=...) gives new entries "
                "a rate of their own.",
            )
        flops = measure_frozen(paradigm, model, names, stage.batch_size, counter)
    values = {name: param.numel() for name, param in model.named_parameters()}
    return Frozen(
        names,
        num_values=sum(values[name] for name in names),
        iters=min(iters, max(1, round(options.until * iters))),
        saved_flops=measured.flops - flops,
    )
