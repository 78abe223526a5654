"""Tell what a block has to begin with so that it passes its input on, and whether it can.

A residual branch ends in a weight or, behind it, in a factor (layer scale), a gate or a norm. The
last of them alone is zeroed in a new block: with two at zero neither would ever get a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

from compt.interfaces import Architecture, ParamAxes


def ends_branch(param: ParamAxes, arch: Architecture) -> bool:
    """Return whether a parameter is the last to act on what its block adds to a stream."""
    if param.scaled_by in arch.params:
        return False
    return _writes_stream(param, arch) or _is_factor(param, arch)


def new_block_reasons(source: Architecture, target: Architecture) -> list[str]:
    """List why new blocks that add nothing would still change what passes through them."""
    return [
        reason
        for scope, depth in target.depths.items()
        if depth > source.depths.get(scope, depth)
        for reason in dict.fromkeys(_reasons_of_last(scope, target))
    ]


def _reasons_of_last(scope: str, arch: Architecture) -> Iterator[str]:
    """Yield why the last block of a stack cannot begin as one that passes its input on."""
    last = arch.depths[scope] - 1
    params = [p for p in arch.params.values() if p.scope == scope and p.block == last]
    ends = [param for param in params if ends_branch(param, arch)]
    if not ends:
        yield f"a new block of '{scope}' adds nothing to a residual stream that could be 0 at first"
    for param in ends:
        if param.tied_to:
            yield f"'{param.template}' is the same tensor in all blocks, so a new one is not 0"
    for param in params:
        if _normalises_sum(param, arch) and "bias" not in param.kind:
            yield (
                f"'{param.template}' normalises the stream itself (post-norm): no new block passes "
                "its input on unchanged"
            )


def _writes_stream(param: ParamAxes, arch: Architecture) -> bool:
    """Return whether a parameter writes a residual stream, through no other parameter."""
    return not _normalises_sum(param, arch) and any(
        direction == "writes" and arch.roles.get(axis) == "stream" and axis not in arch.branches
        for axis, direction in param.directions
    )


def _normalises_sum(param: ParamAxes, arch: Architecture) -> bool:
    """Return whether a norm takes the place of the stream that it normalises, as in BERT."""
    in_place = param.norm_axis in param.axes and bool(param.writes)
    return in_place and not _is_factor(param, arch)


def _is_factor(param: ParamAxes, arch: Architecture) -> bool:
    """Return whether a residual stream is written through a parameter, or through its module."""
    if param.name in arch.factors:
        return True
    module = param.name.rpartition(".")[0]
    return any(
        factor.rpartition(".")[0] == module and _is_bias_of(param, arch.params[factor])
        for factor in arch.factors
    )


def _is_bias_of(param: ParamAxes, factor: ParamAxes) -> bool:
    """Return whether a parameter of a factor's module adds to what the factor makes.

    A norm's bias does, and that of a layer that makes gates; running statistics do not.
    """
    if factor.norm_axis:
        return param.norm_axis == factor.norm_axis and param.kind.endswith("bias")
    made = {axis for axis, direction in factor.directions if direction != "reads"}
    return bool(factor.reads) and not param.reads and made == set(param.axes)
