"""Find what each parameter of a larger model grows from, and whether it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

from compt.errors import GrowthError
from compt.growth.options import advice, changed_options, fault_text
from compt.interfaces import Architecture, ParamAxes, Unit
from compt.interfaces.architecture import RESIZED

DepthMap = Callable[[int, int, int], int]
"""(target block, source depth, target depth) -> the source block that fills it."""

ONE_DESIGN = "Use members of one design, or grower=dict(type='scratch')."

EXTEND_HINT = ", or make it longer first: grower=dict(type='extend', axes={{'{axis}': {rule}}})."

HINTS: Mapping[Unit, str] = {
    "pixels": ", or fit it by a step of its own, grower=dict(type='resample').",
    "places": ", or fit it by a step of its own, grower=dict(type='resample').",
    "rotary": ": grow the number of heads instead (rotary positions turn each channel by an angle "
    "that depends on how many there are).",
    "channels": ": grow the number of heads instead (attention scales its scores by how many "
    "channels a head has, and nothing is known that could make up for it).",
}
"""What else to do, by what an axis counts."""


def source_block(block: int, source_depth: int, target_depth: int) -> int:
    """Return the source block that fills a target block when blocks are repeated in place.

    It is floor(i L_s / L_t), onto for every L_s <= L_t. With round() the last blocks
    would ask for one that the source does not have.
    """
    return block * source_depth // target_depth


def matching(
    param: ParamAxes, source: Architecture, target: Architecture, pick: DepthMap = source_block
) -> ParamAxes | None:
    """Return the source parameter from which a target parameter grows, None if there is none."""
    if param.scope is None or param.block is None:
        return source.params.get(param.template)
    depth = source.depths.get(param.scope)
    if depth is None:
        return None
    start = int(param.scope in target.first_blocks)
    if param.block < start:
        return source.params.get(param.template.format(block=param.block))
    if depth == start:
        return None
    depths = depth - start, target.depths[param.scope] - start
    block = _pick(pick, param.block - start, *depths, target.periods.get(param.scope, 1))
    return source.params.get(param.template.format(block=start + block))


def _pick(pick: DepthMap, block: int, source_depth: int, target_depth: int, period: int) -> int:
    """Return the source block that fills a target block of the same kind.

    Kinds come again after each period, so that periods are picked. The source's last may lack
    blocks, which come from the one before; what the target has beyond whole periods repeats the
    last. A source without any block of the kind has others in its place: they keep the function
    where new blocks add nothing.
    """
    source_periods = ceil(source_depth / period)
    target_periods = max(target_depth // period, source_periods)
    index = min(block // period, target_periods - 1)
    picked = period * pick(index, source_periods, target_periods) + block % period
    picked = picked if picked < source_depth else picked - period
    return picked if picked >= 0 else block % period % source_depth


def starts_anew(param: ParamAxes, source: Architecture, target: Architecture) -> bool:
    """Return whether a parameter is of a block for which the source has none but the first.

    That one differs from all others (``{first}``), so that nothing could grow from it.
    """
    scope = param.scope
    return bool(param.block) and scope in target.first_blocks and source.depths.get(scope) == 1


def check_growable(source: Architecture, target: Architecture) -> None:
    """Raise GrowthError unless every axis of the target is the source's or may grow from it.

    The error names tensor, axis and sizes.
    """
    for scope, depth in source.depths.items():
        if depth > target.depths.get(scope, 0):
            raise GrowthError(
                f"'{scope}' would shrink from {depth} to {target.depths.get(scope, 0)} blocks.",
                do="Order the chain from small to large.",
            )
    for param in target.params.values():
        if param.kind == "constant" or starts_anew(param, source, target):
            continue
        match = matching(param, source, target)
        if param.tied_to:
            # Its shape is its owner's, whose axes are checked; it may have no match, as
            # where weights are tied in the target alone.
            _check_tie(param, match, source, target)
        elif match is None:
            changed = changed_options(source, target)
            raise GrowthError(
                f"The source has no tensor that could grow into '{param.name}' "
                f"({source.module} -> {target.module}).{fault_text(changed)}",
                do=advice(changed, ONE_DESIGN),
            )
        else:
            _check_axes(param, match, source, target)


def _check_tie(
    param: ParamAxes, match: ParamAxes | None, source: Architecture, target: Architecture
) -> None:
    """Raise GrowthError where the target has one tensor and the source two in its place."""
    owner = matching(target.params[str(param.tied_to)], source, target)
    if match and owner and (match.tied_to or match.name) != (owner.tied_to or owner.name):
        raise GrowthError(
            f"'{param.name}' is tied to '{param.tied_to}' in the target, but not in the source: "
            "one tensor cannot hold the values of two.",
            do="Tie them in all members, in none, or up to one member: a tied tensor can grow into "
            "two.",
        )


def _check_axes(
    param: ParamAxes, match: ParamAxes, source: Architecture, target: Architecture
) -> None:
    """Raise GrowthError unless a parameter's axes are its match's and none of them shrinks."""
    if param.groups != match.groups:
        changed = changed_options(source, target)
        raise GrowthError(
            f"'{param.name}' has the axes {param.groups} in the target and {match.groups} in the "
            f"source.{fault_text(changed)}",
            do=advice(changed, ONE_DESIGN),
        )
    for axis in param.axes:
        small, large = source.size(axis), target.size(axis)
        if large < small and target.units.get(axis) not in RESIZED:
            raise GrowthError(
                f"'{param.name}': the axis '{axis}' would shrink from {small} to {large}.",
                do="Order the chain from small to large.",
            )
        if large != small and target.roles.get(axis, "fixed") == "fixed":
            raise GrowthError(
                f"'{param.name}': the axis '{axis}' changes from {small} to {large}, and it cannot "
                "grow.",
                do=f"Keep '{axis}' the same in all members{_hint(axis, target)}",
            )


def queries_over(axis: str, arch: Architecture) -> list[ParamAxes]:
    """Return what makes queries of an axis of channels, where growing it can be made up for.

    A norm over the channels of a query or a key would see those that come in.
    """
    normed = any(axis in str(param.norm_axis).split("+") for param in arch.params.values())
    params = [] if normed else arch.params.values()
    return [param for param in params if axis in param.axes and param.score_scale is not None]


def _hint(axis: str, arch: Architecture) -> str:
    """Return what else may be done where an axis must stay, as the end of a sentence."""
    unit = arch.units.get(axis)
    if unit == "channels" and queries_over(axis, arch):
        return EXTEND_HINT.format(axis=axis, rule="'pad'")
    return HINTS[unit] if unit else EXTEND_HINT.format(axis=axis, rule="...")
