"""Hold the rule by which members are a family and a chain keeps their order, set before results.

Qualities are numbers that are to rise.
"""

from __future__ import annotations

APART = 3.0
"""Standard errors by which neighbours alone have to differ."""
LONGER = 8
"""How many times as long the smallest member must not reach the largest."""
STEP_KEPT = 0.8
"""Share of what parts two members alone by which one must beat the one that it grows from."""


def required_step(alone: float, alone_source: float, source: float) -> float:
    """Return by how much a member has to beat the one that it grows from.

    That is most of what parts the two alone; what is left of it where the source, in the chain, is
    better than alone; and no less than nothing where it has overtaken the member.

    Args:
        alone: quality of the member alone.
        alone_source: of the member before, alone.
        source: of the member before, in the chain.
    """
    return max(0.0, min(STEP_KEPT * (alone - alone_source), alone - source))
