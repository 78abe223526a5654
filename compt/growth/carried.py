"""Tell which parameters of a grown model were carried over whole, and which are frozen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from torch import nn

from compt.errors import ConfigError, did_you_mean
from compt.growth.matching import matching
from compt.growth.operators import AxisGrower
from compt.interfaces import Architecture, Grower


def carried_over(grower: Grower, source: Architecture, target: Architecture) -> list[str]:
    """List the target's tensors that are a source's of the same shape, and in no new block.

    Of those that are wider in the target, a part is new; of source blocks that fill several, the
    first is the old one.

    Raises:
        ConfigError: the grower does not grow tensor by tensor.
    """
    if not isinstance(grower, AxisGrower):
        raise ConfigError(
            f"The grower {type(grower).__name__} does not grow tensor by tensor, so nothing is "
            "carried over whole.",
            do="Name the parameters to freeze, or use a grower such as 'stack' or 'lossless'.",
        )
    used: set[str] = set()
    names = []
    for name, param in target.params.items():
        match = matching(param, source, target, grower.source_block_index)
        if match is None:
            continue
        is_first = bool(param.tied_to) or match.name not in used
        used.add(match.name)
        is_whole = source.shape(match) == target.shape(param)
        if is_first and is_whole and match.multiplier == param.multiplier:
            names.append(name)
    return names


def frozen_params(
    model: nn.Module, patterns: Sequence[str], old: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the names of the parameters that patterns stand for, tied ones by their first.

    Args:
        model: of the member.
        patterns: names, with ``*`` for any text.
        old: names of further ones.

    Raises:
        ConfigError: a pattern fits no parameter that would be trained.
    """
    first_names = {param: name for name, param in model.named_parameters()}
    names = {
        name: first_names[param]
        for name, param in model.named_parameters(remove_duplicate=False)
        if param.requires_grad
    }
    frozen = {names[name] for name in old if name in names}
    for pattern in patterns:
        fitting = [own for name, own in names.items() if fnmatchcase(name, pattern)]
        if not fitting:
            raise ConfigError(
                f"freeze: no parameter that is trained is called '{pattern}'."
                f"{did_you_mean(pattern, names)}",
                do="Give whole names, with '*' for any text, such as 'visual.*'.",
            )
        frozen.update(fitting)
    return tuple(name for name in first_names.values() if name in frozen)
