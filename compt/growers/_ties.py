"""Tell what a head that is tied to an embedding forbids, for growers that mean to be exact."""

from __future__ import annotations

from compt.growth.operators import reads_for_table
from compt.interfaces import Architecture, ParamAxes


def tie_reasons(param: ParamAxes, source: Architecture, target: Architecture) -> list[str]:
    """List why a tied parameter would not compute what it did, one reason a growing axis.

    The tensor grows by the directions of its first name. An axis that a tied parameter
    uses otherwise, as a head reads the stream that its embedding writes, is then wrong
    for it, unless the norm that it alone reads makes up for that.
    """
    owner = target.params[str(param.tied_to)]
    differing = {axis for axis, _ in {*owner.directions} ^ {*param.directions}}
    differing -= _compensated_axes(param, target)
    return [
        f"'{param.template}' uses '{axis}' otherwise than '{owner.template}', which it is tied to, "
        "and the layout names no norm to make up for it"
        for axis in sorted(differing)
        if not axis.isdigit() and source.sizes.get(axis) != target.sizes[axis]
    ]


def _compensated_axes(param: ParamAxes, target: Architecture) -> set[str | None]:
    """Return the axes of the norm that makes up for a tied reader, none where it cannot.

    All parameters of the norm's module have to: a gain that is told who reads it helps
    little beside a bias that is not.
    """
    norm_axes = {
        _module(norm): norm.norm_axis
        for norm in target.params.values()
        if norm.read_by == param.name
    }
    of_norms = [param for param in target.params.values() if _module(param) in norm_axes]
    if all(reads_for_table(norm, target) for norm in of_norms):
        return set(norm_axes.values())
    return set()


def _module(param: ParamAxes) -> str:
    """Return the name of the module that holds a parameter."""
    return param.name.rpartition(".")[0]
