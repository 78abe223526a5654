"""Find the sizes of axes from the shapes of tensors and from what layouts say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from compt.errors import LayoutError
from compt.interfaces import ParamAxes

ParamTensor = tuple[ParamAxes, Tensor]
"""What is known of a tensor's axes, and the tensor."""


@dataclass(frozen=True)
class _Dimension:
    """One dimension of a tensor, whose length is what its sections add up to.

    Each section is the product of its axes' sizes; there is one where nothing is concatenated.
    """

    param: str
    sections: tuple[tuple[str, ...], ...]
    length: int

    def unknown(self, sizes: Mapping[str, int]) -> list[str]:
        """List the axes that have no size yet, numbers never among them."""
        return [
            axis
            for section in self.sections
            for axis in section
            if not axis.isdigit() and axis not in sizes
        ]

    def solve(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the size of the one unknown axis, by its name.

        Where several are unknown, or none, there is nothing to return.

        Raises:
            LayoutError: no size fits the length.
        """
        unknown = set(self.unknown(sizes))
        if len(unknown) > 1 or any(_repeats(section, unknown) for section in self.sections):
            return {}
        rest, times = self.length, 0
        for section in self.sections:
            product = _product(section, sizes)
            if unknown.isdisjoint(section):
                rest -= product
            else:
                times += product
        if unknown and rest >= 0 and rest % times == 0:
            return {unknown.pop(): rest // times}
        if not unknown and not rest:
            return {}
        axes = [axis for section in self.sections for axis in section]
        known_sizes = {axis: sizes[axis] for axis in axes if axis in sizes}
        raise LayoutError(
            f"'{self.param}': a dimension of length {self.length} does not fit its axes "
            f"{' | '.join(map(' '.join, self.sections))} ({known_sizes}).",
            do="The layout does not fit this variant of the model.",
        )


def _repeats(section: Sequence[str], axes: set[str]) -> bool:
    """Return whether a section has one of the axes more than once."""
    return any(section.count(axis) > 1 for axis in axes)


def _product(section: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Return the product of a section's sizes, of those that are known."""
    return math.prod(int(axis) if axis.isdigit() else sizes.get(axis, 1) for axis in section)


def _dimensions(param: ParamAxes, tensor: Tensor) -> Iterator[_Dimension]:
    """Yield the dimensions of a tensor."""
    for index, (group, length) in enumerate(zip(param.groups, tensor.shape, strict=True)):
        sections: tuple[tuple[str, ...], ...] = (group,)
        if param.sections and index == param.joined:
            sections = tuple(section.groups[index] for section in param.sections)
        yield _Dimension(param.name, sections, length)


def solve(params: Sequence[ParamTensor], layout_sizes: Mapping[str, int]) -> dict[str, int]:
    """Find every axis's size from the tensors' shapes and the sizes that the layouts give."""
    sizes = dict(layout_sizes)
    dimensions = [dimension for param, tensor in params for dimension in _dimensions(param, tensor)]
    num_known = -1
    # In passes, as a dimension may lack a size that a later one gives.
    while num_known != len(sizes):
        num_known = len(sizes)
        for dimension in dimensions:
            sizes |= dimension.solve(sizes)
    for dimension in dimensions:
        if unknown := list(dict.fromkeys(dimension.unknown(sizes))):
            raise LayoutError(
                f"'{dimension.param}': the sizes of {unknown} cannot be told from shapes.",
                do="Give them in the layout's sizes().",
            )
    return sizes
