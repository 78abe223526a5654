"""Tell what a grown member takes along beside its weights, entry by entry.

:func:`new_entries` finds what holds nothing of the source, for a learning rate of its
own; :func:`grow_state` grows the optimizer's memory of the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from compt.growth.axes import describe
from compt.growth.matching import matching
from compt.growth.operators import (
    AxisGrower,
    ParamPair,
    by_section,
    reads_for_table,
    tensors_of,
)
from compt.growth.run import build_grower, load_grown
from compt.interfaces import Architecture, Grower, ParamAxes

CARRIED = ("Adam", "AdamW", "SGD")
"""Optimizers that remember nothing but moments and the number of steps."""

GRADIENT_POWERS: Mapping[str, int] = {
    "exp_avg": 1,
    "momentum_buffer": 1,
    "exp_avg_sq": 2,
    "max_exp_avg_sq": 2,
}
"""What optimizers remember of each entry, and the power of the gradient that it is a mean of."""


def new_entries(
    source: nn.Module,
    target: nn.Module,
    grower: Mapping[str, object] | str | Grower,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Find the entries of the target's parameters that hold nothing of the source once grown.

    They are those that come out the same from a source with other values. No grower has
    to say which they are.

    Args:
        source: the smaller model.
        target: the larger one, freshly initialised; both stay as they are.
        grower: as of :func:`compt.grow`, with its seed.

    Returns:
        Bool tensors of the parameters' shapes, by name; tied ones once.
    """
    changed = deepcopy(source)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*changed.parameters(), *changed.buffers()):
            if tensor.is_floating_point():
                tensor += torch.randn(tensor.shape, generator=generator).to(tensor)
    from_source, from_changed = (
        _grown_params(model, target, grower, seed) for model in (source, changed)
    )
    return {name: value == from_changed[name] for name, value in from_source.items()}


def _grown_params(
    source: nn.Module,
    target: nn.Module,
    grower: Mapping[str, object] | str | Grower,
    seed: int,
) -> dict[str, Tensor]:
    """Return the parameters of a copy of the target after growth, detached, tied ones once."""
    grown = deepcopy(target)
    load_grown(source, grown, (describe(source), describe(grown)), grower, seed=seed)
    return {name: param.detach() for name, param in grown.named_parameters()}


def grow_state(
    source: nn.Module,
    target: nn.Module,
    grower: Mapping[str, object] | str | Grower,
    state: Mapping[str, Tensor],
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Grow an optimizer's state along with the weights.

    A moment follows the gradient: what a unit's copies write adds up, so the gradients
    of what writes them are shared out as the weights of what reads them are, and the
    other way round. Second moments follow its square. Entries that no gradient of the
    source tells of get zeros; parameters of new blocks have no entry, and start anew,
    since with the source's step count Adam would not correct the bias of moments that
    begin at zero. Exact for tilings (:class:`clone` at whole multiples, without noise);
    elsewhere up to a factor for each tensor, which leaves Adam's steps alone.

    Args:
        source: the smaller model, trained.
        target: the larger one; both stay as they are.
        grower: an AxisGrower, or its name or config.
        state: of :func:`compt.training.optim.named_state`, by 'key:parameter'.
        seed: of the growth of the weights, so that random maps are the same.

    Returns:
        The target's, likewise.
    """
    operator = build_grower(grower)
    assert isinstance(operator, AxisGrower)
    operator = operator.without_noise()
    grown: dict[str, Tensor] = {}
    for name, tensor, pair in _gradient_pairs(operator, source, target, seed):
        source_name = pair.source_param.tied_to or pair.source_param.name
        for key, value in _entries(state, source_name).items():
            power = GRADIENT_POWERS.get(key)
            if power is None:  # the number of steps
                grown[f"{key}:{name}"] = value.clone()
            else:
                moment = _grown_moment(value, tensor.shape, power, pair, operator)
                grown[f"{key}:{name}"] = moment.to(value.dtype)
    return grown


def _gradient_pairs(
    grower: AxisGrower, source: nn.Module, target: nn.Module, seed: int
) -> Iterator[tuple[str, Tensor, ParamPair]]:
    """Yield every parameter that inherits a state, with axes as its gradient flows.

    A tied tensor comes once, as an optimizer has it. A source block gives its state
    once: the others that it fills start anew.
    """
    archs = {"source": describe(source), "target": describe(target)}
    generator = torch.Generator().manual_seed(seed)
    maps = grower.prepare(tensors_of(source), archs, generator)
    small, large = archs["source"], archs["target"]
    used: set[str] = set()
    for name, tensor in target.named_parameters():
        param = large.params[name]
        match = matching(param, small, large, grower.source_block_index)
        if match is None or match.name in used:
            continue
        used.add(match.name)
        multiplier = ParamPair(param, match, small, large, generator, False).multiplier
        # A constant that a weight is multiplied by multiplies its gradient too.
        param = replace(_backward(param, large), multiplier=multiplier)
        match = replace(_backward(match, large), multiplier=1.0)
        yield name, tensor, ParamPair(param, match, small, large, generator, False, maps)


def _grown_moment(
    value: Tensor, shape: torch.Size, power: int, pair: ParamPair, grower: AxisGrower
) -> Tensor:
    """Grow one moment, the mean of a gradient's power, to a shape, in float64.

    Its root is what grows as the gradient does, since halves of a square are not the
    square of halves. What the maps do not reach stays 0, where a weight has its fresh
    value.
    """
    root = value.double() ** (1 / power) * pair.multiplier
    zeros = torch.zeros(shape, dtype=torch.float64)
    return by_section(grower.expand, root, zeros, pair) ** power


def _entries(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return what the optimizer remembers of one parameter, by key."""
    entries = {}
    for path, value in state.items():
        key, _, owner = path.partition(":")
        if owner == name:
            entries[key] = value
    return entries


def _backward(param: ParamAxes, arch: Architecture) -> ParamAxes:
    """Return a parameter's axes as its gradient flows, from what it writes to what it reads.

    Gains and factors read as well, as what they pass on is shared out; but for a norm
    whose gain makes up for a head that is tied to a table, and so is copied.
    """
    every, none = tuple(range(len(param.groups))), tuple[int, ...]()
    if reads_for_table(param, arch):
        reads, writes = none, every
    elif param.norm_axis or param.kind == "scale":
        # A layer that makes factors writes back what it reads.
        reads, writes = tuple(dim for dim in every if dim not in param.reads), param.reads
    else:
        reads, writes = param.writes, param.reads
    scale = param.score_scale
    return replace(
        param,
        kind="weight",
        reads=reads,
        writes=writes,
        read_by=None,
        sections=tuple(_backward(section, arch) for section in param.sections),
        # A weight that grows by a factor has a gradient that falls by it.
        score_scale=None if scale is None else 1 / scale,
    )
