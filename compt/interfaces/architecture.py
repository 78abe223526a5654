"""See a module as named axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["stream", "hidden", "output", "fixed"]
Group = tuple[str, ...]


@dataclass(frozen=True)
class ParamAxes:
    """The axes of one parameter or buffer.

    ``groups`` has one entry per tensor dimension, in memory order; an entry lists the axes folded
    into that dimension, slowest first: a fused ``qkv.weight`` is ``(("3", "heads", "head_dim"),
    ("embed",))``. ``reads`` and ``writes`` hold the indices of the groups through which the tensor
    reads and writes activations. A norm's gain has ``writes == ()`` unless its result is itself a
    residual stream.
    """

    name: str
    kind: str
    groups: tuple[Group, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    template: str
    """The name with every block index replaced by ``{block}``."""
    scope: str | None = None
    """What stands before ``{block}``, None outside a stack of blocks."""
    block: int | None = None
    tied_to: str | None = None
    """The first name of the same tensor, where several names share it."""
    buffer: bool = False
    scaled_by: str | None = None
    """The parameter (layer scale) that multiplies what this one writes, if any."""
    norm_axis: str | None = None
    """The axis that a norm's gain or bias normalises over."""
    read_by: str | None = None
    """For a norm's gain or bias, the one parameter known to read the norm's result, if any."""

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes, flattened over the groups."""
        return tuple(axis for group in self.groups for axis in group)

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """Each of ``axes`` with ``"reads"``, ``"writes"`` or ``""``, as the parameter uses it."""
        uses = dict.fromkeys(self.reads, "reads") | dict.fromkeys(self.writes, "writes")
        return tuple(
            (axis, uses.get(index, "")) for index, group in enumerate(self.groups) for axis in group
        )


@dataclass(frozen=True)
class Architecture:
    """A module seen as named axes, from which growers, plans and projection heads are made.

    ``sizes`` maps an axis to its length, ``roles`` to how it may grow: ``stream`` (a residual width
    that many parameters write and read), ``hidden`` (units inside one sub-layer, such as ``mlp`` or
    ``heads``), ``output`` (a feature width that leaves the model), ``fixed``. ``whole`` are axes
    that keep the function only at whole multiples, as ``Layout.whole`` says. ``depths`` maps the
    scope of each stack of blocks to its number of blocks. ``outputs`` maps the outputs of the
    paradigm to their widths, ``features`` those that transferers compare by default; both are empty
    outside a chain.
    """

    module: str
    sizes: Mapping[str, int]
    roles: Mapping[str, Role]
    depths: Mapping[str, int]
    params: Mapping[str, ParamAxes]
    features: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    def shape(self, param: ParamAxes) -> tuple[int, ...]:
        """Return the unfolded shape of a parameter, with one dimension per atomic axis."""
        return tuple(self.size(axis) for axis in param.axes)

    def size(self, axis: str) -> int:
        """Return the length of an axis, where a number is its own length."""
        return int(axis) if axis.isdigit() else self.sizes[axis]
