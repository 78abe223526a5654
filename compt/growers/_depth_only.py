"""Refuse wider targets, for growers that add blocks alone."""

from __future__ import annotations

from compt.errors import GrowthError
from compt.interfaces import Architecture


def check_same_widths(grower: str, source: Architecture, target: Architecture) -> None:
    """Raise GrowthError where a width differs.

    Args:
        grower: name of the one that cannot widen.
        source: the smaller model.
        target: the larger one.
    """
    for axis, size in target.sizes.items():
        if size != source.sizes.get(axis, size):
            raise GrowthError(
                f"The grower {grower} grows depth only, and the axis '{axis}' changes from "
                f"{source.sizes[axis]} to {size}.",
                do="Use grower=dict(type='compose', width=dict(type='clone'), "
                "depth=dict(type='stack')).",
            )
