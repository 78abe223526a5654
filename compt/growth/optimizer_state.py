"""What a grown member takes along beside its weights: learning rates of its own, and the
optimizer's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compt.errors import GrowthError
from compt.growth.axes import describe
from compt.growth.operators import AxisGrower, ParamPair, matching, reads_for_table, tensors_of
from compt.growth.run import build_grower, grow
from compt.interfaces import Architecture, Grower, ParamAxes

LINEAR = {"exp_avg": 1, "momentum_buffer": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}
"""What optimizers remember of each entry, and the power of the gradient that it is a mean of."""
CARRIED = ("Adam", "AdamW", "SGD")
"""Optimizers that remember nothing else but the number of steps."""


@dataclass(frozen=True)
class GrownOptions:
    """How a grown member is trained otherwise than one from scratch.

    ``lr_mult`` is the peak learning rate relative to the member's own, ``new_lr_mult`` that of the
    entries that hold nothing of the source, as much as ``lr_mult`` if None. With
    ``optimizer_state`` the source's optimizer state is grown along: the moments follow the
    gradient; new blocks start anew.
    """

    lr_mult: float = 1.0
    new_lr_mult: float | None = None
    optimizer_state: bool = False

    @property
    def new_ratio(self) -> float:
        """The rate of new entries relative to that of inherited ones."""
        return 1.0 if self.new_lr_mult is None else self.new_lr_mult / self.lr_mult

    def check(self, grower: Grower, name: str) -> None:
        """Raise GrowthError where a grower cannot tell what this asks for."""
        if self.optimizer_state and not isinstance(grower, AxisGrower):
            raise GrowthError(
                f"The grower '{name}' does not grow tensor by tensor, so no optimizer state can follow it.",
                do="Use another grower, or grown=dict(optimizer_state=False).",
            )
        if self.new_ratio != 1 and grower.objective_calls:
            raise GrowthError(
                f"The grower '{name}' learns its weights, so none of them are new.",
                do="Use another grower, or leave out grown.new_lr_mult.",
            )


def new_entries(
    source: nn.Module,
    target: nn.Module,
    grower: Mapping[str, object] | str | Grower,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which entries of the target's parameters hold nothing of the source once they are grown.

    Those that come out the same from a source with other values.

    Args:
        source: the smaller model.
        target: the larger one, freshly initialised; both stay as they are.
        grower: as of :func:`compt.grow`, with its seed.

    Returns:
        Bool tensors of the parameters' shapes, by name; tied ones once.
    """
    other, grown = deepcopy(source), [deepcopy(target), deepcopy(target)]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor += torch.randn(tensor.shape, generator=generator).to(tensor)
    for model, result in zip((source, other), grown, strict=True):
        grow(model, result, grower, seed=seed)
    one, another = (dict(result.named_parameters()) for result in grown)
    return {name: (one[name] == another[name]).detach() for name in one}


def grow_state(
    source: nn.Module,
    target: nn.Module,
    grower: Mapping[str, object] | str | Grower,
    state: Mapping[str, Tensor],
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Grow an optimizer's state along with the weights.

    A moment follows the gradient: what a unit's copies write adds up, so the gradients of what
    writes them are shared out as the weights of what reads them are, and the other way round.
    Second moments follow its square. Entries that no gradient of the source tells of get zeros;
    parameters of new blocks have no entry, and start anew. Exact for tilings (:class:`clone` at
    whole multiples, without noise); elsewhere up to a factor for each tensor, which leaves Adam's
    steps alone.

    Args:
        source: the smaller model, trained.
        target: the larger one; both stay as they are.
        grower: an AxisGrower, or its name or config.
        state: of :func:`compt.training.optim.named_state`, by 'key:parameter'.

    Returns:
        The target's, likewise.
    """
    operator = build_grower(grower)
    assert isinstance(operator, AxisGrower)
    operator = operator.without_noise()
    source_arch, target_arch = describe(source), describe(target)
    generator = torch.Generator().manual_seed(seed)
    maps = operator.prepare(
        tensors_of(source), {"source": source_arch, "target": target_arch}, generator
    )
    used: set[str] = set()
    grown: dict[str, Tensor] = {}
    for name, tensor in target.named_parameters():
        param = target_arch.params[name]
        match = matching(param, source_arch, target_arch, operator.source_block_index)
        if match is None or match.name in used:
            continue
        used.add(match.name)
        for key, value in _of(state, match.tied_to or match.name).items():
            power = LINEAR.get(key)
            if power is None:  # the number of steps
                grown[f"{key}:{name}"] = value.clone()
            else:
                large_side, small_side = (_backward(one, target_arch) for one in (param, match))
                pair = ParamPair(
                    large_side, small_side, source_arch, target_arch, generator, False, maps
                )
                small = value.double() ** (1 / power)
                large = torch.zeros(target_arch.shape(param), dtype=torch.float64)
                moved = (
                    operator.expand(small.reshape(source_arch.shape(match)), large, pair) ** power
                )
                grown[f"{key}:{name}"] = moved.reshape(tensor.shape).to(value.dtype)
    return grown


def _of(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What the optimizer remembers of one parameter, by key."""
    found = (key.partition(":") for key in state)
    return {key: state[f"{key}:{owner}"] for key, _, owner in found if owner == name}


def _backward(param: ParamAxes, arch: Architecture) -> ParamAxes:
    """The parameter as its gradient flows: it reads what the parameter writes, and the other way
    round.

    Gains and factors read as well, as what they pass on is shared out; but for a norm whose gain
    makes up for a head that is tied to a table, and so is copied.
    """
    every, none = tuple(range(len(param.groups))), tuple[int, ...]()
    if reads_for_table(param, arch):
        reads, writes = none, every
    elif param.norm_axis or param.kind == "scale":
        reads, writes = every, none
    else:
        reads, writes = param.writes, param.reads
    return replace(param, kind="weight", reads=reads, writes=writes, read_by=None)
