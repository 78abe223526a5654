"""What a head that is tied to an embedding forbids, and what its norm makes up for: shared by exact
growers.
"""

from __future__ import annotations

from compt.growth.operators import reads_for_table
from compt.interfaces import Architecture, ParamAxes


def tie_reasons(param: ParamAxes, source: Architecture, target: Architecture) -> list[str]:
    """Name each growing axis that a tied parameter uses otherwise than its tensor's owner, with no
    norm to help.
    """
    owner = target.params[str(param.tied_to)]
    norms = {
        p.name.rpartition(".")[0]: p.norm_axis
        for p in target.params.values()
        if p.read_by == param.name
    }
    parts = [p for p in target.params.values() if p.name.rpartition(".")[0] in norms]
    passed = set(norms.values()) if all(reads_for_table(p, target) for p in parts) else set()
    changed = {
        axis for axis, _ in {*owner.directions} ^ {*param.directions} if not axis.isdigit()
    } - passed
    return [
        f"'{param.template}' uses '{axis}' otherwise than '{owner.template}', which it is tied to, and the layout "
        "names no norm to make up for it"
        for axis in sorted(changed)
        if source.sizes.get(axis) != target.sizes[axis]
    ]
