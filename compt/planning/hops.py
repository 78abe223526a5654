"""Check order, growth and transfer between two members."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from compt.config import StageConfig
from compt.config.options import GrownOptions
from compt.errors import ConfigError, GrowthError, located
from compt.growth.operators import AxisGrower
from compt.interfaces import (
    Architecture,
    Grower,
    Paradigm,
    Transferer,
    check_signatures,
    ruled_buffers,
)
from compt.planning.plans import StagePlan
from compt.registry import GROWERS, TRANSFERERS
from compt.registry.registry import short_name

EXPANSION = (2.0, 4.0)
"""How neighbours should differ in parameters: rule (ii) of the paper, arXiv 2604.12391."""


def check_hop(
    stage: StageConfig,
    paradigm: Paradigm,
    source: Architecture,
    target: Architecture,
    previous: StagePlan,
    num_params: int,
) -> tuple[Grower, Transferer]:
    """Check one hop, and return its grower and transferer.

    Args:
        stage: of the target.
        paradigm: of the chain.
        source: the member before.
        target: the member.
        previous: plan of the stage before.
        num_params: parameters of the target.

    Raises:
        ComptError: sizes out of order, or a pair that cannot be grown or learned from.
    """
    where = f"chain, '{previous.name}' -> '{stage.name}'"
    if num_params <= previous.params:
        raise ConfigError(
            f"The members are not in ascending size: '{stage.name}' has {num_params:,} parameters, "
            f"'{previous.name}' before it {previous.params:,}.",
            where=where,
            do="Order the chain from small to large.",
        )
    with located(where):
        grower: Grower = GROWERS.build(dict(stage.grower))
        grower.check(source, target)
        _check_grown(stage.grown, grower, short_name(stage.grower["type"]))
        transferer: Transferer = TRANSFERERS.build(dict(stage.transfer))
        _check_transfer(transferer, stage, paradigm, source, target)
    return grower, transferer


def _check_grown(options: GrownOptions, grower: Grower, name: str) -> None:
    """Raise GrowthError where a grower cannot tell what the options of grown members ask for."""
    if options.optimizer_state and not isinstance(grower, AxisGrower):
        raise GrowthError(
            f"The grower '{name}' does not grow tensor by tensor, so no optimizer state can follow "
            "it.",
            do="Use another grower, or grown=dict(optimizer_state=False).",
        )
    if options.has_rate_of_new and grower.objective_calls:
        raise GrowthError(
            f"The grower '{name}' learns its weights, so none of them are new.",
            do="Use another grower, or leave out grown.new_lr_mult and grown.new_warmup.",
        )


def _check_transfer(
    transferer: Transferer,
    stage: StageConfig,
    paradigm: Paradigm,
    source: Architecture,
    target: Architecture,
) -> None:
    """Raise ConfigError where a transferer does not find what it reads.

    PluginError where its methods do not take what they are given, or it has a rule for a buffer
    that it lacks.
    """
    check_signatures(transferer, Transferer)
    name = short_name(stage.transfer["type"])
    missing = sorted(transferer.needs - paradigm.outputs)
    if missing:
        raise ConfigError(
            f"The transfer '{name}' needs {missing}, the paradigm has {sorted(paradigm.outputs)}."
        )
    try:
        with torch.device("meta"):
            transferer.bind(source, target)
    except KeyError as error:
        raise ConfigError(f"The transfer '{name}' found no output {error}.") from error
    ruled_buffers(transferer.buffer_rules, transferer, type(transferer).__name__)


def hop_warnings(
    stage: StageConfig,
    source: Architecture,
    target: Architecture,
    previous: StagePlan,
    num_params: int,
) -> Iterator[str]:
    """Yield where a hop leaves the paper's rules."""
    hop = f"'{previous.name}' -> '{stage.name}'"
    ratio = round(num_params / previous.params, 1)  # as it is shown
    if not EXPANSION[0] <= ratio <= EXPANSION[1]:
        yield f"{hop} grows {ratio:.1f}x in parameters; the paper's chains stay between 2x and 4x."
    for axis, size in source.sizes.items():
        if (
            source.units.get(axis) in ("channels", "rotary")
            and target.sizes.get(axis, size) != size
        ):
            yield (
                f"{hop}: '{axis}' changes from {size} to {target.sizes[axis]}; attention cannot be "
                "inherited."
            )
