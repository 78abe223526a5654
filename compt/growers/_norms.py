"""Tell which axes norms and factors span, and what they do not pass exactly, for Lossless."""

from __future__ import annotations

from math import prod

from compt.growers._streams import carries_mean
from compt.interfaces import Architecture, ParamAxes


def copied_axes(source: Architecture, target: Architecture) -> set[str]:
    """Return the hidden axes that norms span and that grow by copies, at whole multiples.

    New units that are not copies would change the norm's variance for all.
    """
    spanned = {
        frozenset(_growing(param, source, target))
        for param in target.params.values()
        if param.norm_axis and not param.kind.startswith("batch_norm")
    }
    return {
        axis
        for axes in spanned
        for axis in axes
        if all(target.sizes[other] % source.sizes[other] == 0 for other in axes)
        and target.roles[axis] == "hidden"
    }


def _growing(norm: ParamAxes, source: Architecture, target: Architecture) -> list[str]:
    """List the axes of a norm that are longer in the target."""
    return [
        axis
        for axis in str(norm.norm_axis).split("+")
        if axis in source.sizes and source.sizes[axis] != target.sizes[axis]
    ]


def norm_reasons(param: ParamAxes, source: Architecture, target: Architecture) -> list[str]:
    """List why a norm's output would not be the source's, given its gain."""
    if "gain" not in param.kind:  # the gain speaks for the norm
        return []
    axis = str(param.norm_axis)
    growing = _growing(param, source, target)
    if all(target.sizes[other] % source.sizes[other] == 0 for other in growing):
        return []
    small = _folded_size(axis, source)
    if param.kind.startswith("batch_norm"):
        return _batch_norm_reasons(param, target)
    if target.roles[axis] != "stream":
        return [
            f"'{param.template}' normalises over '{axis}', which grows: exact at multiples of "
            f"{small} only"
        ]
    if param.writes and any(carries_mean(other, target) for other in (axis, *param.axes)):
        return [
            f"'{param.template}' writes the residual stream through a norm: exact at multiples of "
            f"{small} only"
        ]
    if len(param.axes) > 1:
        return [f"'{param.template}' normalises several tokens: exact at multiples of {small} only"]
    return []


def scale_reasons(param: ParamAxes, source: Architecture, target: Architecture) -> list[str]:
    """List why a factor that no parameter makes up for would not keep the function."""
    return [
        f"'{param.template}' scales the residual stream: exact at multiples of "
        f"{source.sizes[axis]} only"
        for axis in param.axes
        if target.roles.get(axis) == "stream"
        and target.sizes[axis] % source.sizes[axis]
        and carries_mean(axis, target)
    ]


def _batch_norm_reasons(param: ParamAxes, target: Architecture) -> list[str]:
    """List why a norm of each unit by itself would change what pads hold, where they hold any."""
    if not any(carries_mean(axis, target) for axis in (str(param.norm_axis), *param.axes)):
        return []
    return [
        f"'{param.template}' normalises each unit of '{param.norm_axis}' by itself, and a "
        "LayerNorm spans them: exact at whole multiples only"
    ]


def _folded_size(axis: str, arch: Architecture) -> int:
    """Return the size of an axis, of several folded ones (``heads+head_dim``) their product."""
    return prod(arch.size(folded) for folded in axis.split("+") if folded)
