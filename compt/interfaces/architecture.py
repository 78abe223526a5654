"""See a module as named axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Literal

Role = Literal["stream", "hidden", "output", "fixed"]
"""How an axis grows with the width: a residual width, units in a layer, a feature width, not."""

Unit = Literal["pixels", "places", "channels", "rotary"]
"""What a fixed axis counts.

Pixels of a patch, places of an image's grid or of a window, channels of a head, or those that
rotary positions turn.
"""

RESIZED: frozenset[str] = frozenset({"pixels", "places"})
"""Units of which there may be less too, as smaller images have less."""

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
    """The parameter that scales, gates or normalises what this one writes, if any."""
    norm_axis: str | None = None
    """The axis that a norm's gain or bias normalises over."""
    read_by: str | None = None
    """For a norm's gain or bias, the one parameter known to read the norm's result, if any."""
    multiplier: float = 1.0
    """A constant, often of the model's size, that the model multiplies this parameter by."""
    sections: tuple[ParamAxes, ...] = ()
    """What is concatenated in this tensor, in order, each as if it were a tensor of its own.

    ``groups`` then has one made-up axis, ``"a | b"``, where they are concatenated.
    """
    joined: int = 0
    """The dimension along which the sections are concatenated."""
    dense: tuple[str, ...] | None = None
    """What a tensor of experts holds of a model without them, as ``Layout.dense`` says."""
    each: tuple[str, ...] = ()
    """Axes for each unit of which the sections are concatenated anew."""
    score_scale: float | None = None
    """Of what makes an attention's queries, by what it multiplies their products with keys."""

    @property
    def gain_offset(self) -> float:
        """1 for the gain of a norm that multiplies by 1 + its parameter, as Gemma's, else 0."""
        return 1.0 if self.kind.endswith("gain_offset") else 0.0

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes, flattened over the groups; those of sections once each."""
        if self.sections:
            return tuple(dict.fromkeys(axis for part in self.sections for axis in part.axes))
        return tuple(axis for group in self.groups for axis in group)

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """Each of ``axes`` with ``"reads"``, ``"writes"`` or ``""``, as the parameter uses it."""
        if self.sections:
            every = (use for part in self.sections for use in part.directions)
            return tuple(dict.fromkeys(every))
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
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Dimensions of each output between batch and width, as ``(196,)`` or ``(14, 14)``."""
    whole: frozenset[str] = frozenset()
    periods: Mapping[str, int] = field(default_factory=dict)
    """After how many blocks their kinds come again, by scope, where it is not 1."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    """What some fixed axes count, by which growers know what other sizes mean."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """The size that says how many units of an axis a token chooses, by axis, as of experts."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that the module was built with, as ``Layout.options`` says; those of parts by path.

    It is empty where they are not known.
    """

    @cached_property
    def first_blocks(self) -> frozenset[str]:
        """The scopes of stacks whose first block has patterns of its own.

        No block but the first grows from it.
        """
        return frozenset(
            param.scope
            for param in self.params.values()
            if param.scope is not None and param.block == 0 and "{block}" not in param.template
        )

    @cached_property
    def branches(self) -> frozenset[str]:
        """The streams that a norm of a block turns into another one, as where it ends a branch.

        What writes them writes no residual yet; the norm does.
        """
        return frozenset(
            param.norm_axis
            for param in self.params.values()
            if param.norm_axis
            and param.writes
            and param.scope
            and param.norm_axis not in param.axes
        )

    @cached_property
    def factors(self) -> frozenset[str]:
        """The parameters that scale, gate or normalise what others write to a residual stream."""
        return frozenset(
            param.scaled_by
            for param in self.params.values()
            if param.scaled_by
            and param.scaled_by in self.params
            and any(
                direction == "writes" and self.roles.get(axis) == "stream"
                for axis, direction in param.directions
            )
        )

    def shape(self, param: ParamAxes) -> tuple[int, ...]:
        """Return the unfolded shape of a parameter, with one dimension per atomic axis.

        What is concatenated is one dimension.
        """
        return tuple(self.size(axis) for group in param.groups for axis in group)

    def size(self, axis: str) -> int:
        """Return the length of an axis, where a number is its own length.

        That of sections, ``"a b | c"``, is the sum of theirs.
        """
        if "|" in axis:
            return sum(map(self._folded_size, axis.split("|")))
        return int(axis) if axis.isdigit() else self.sizes[axis]

    def section_lengths(self, param: ParamAxes) -> list[int]:
        """Return how long each section of a parameter is, along the dimension that joins them."""
        sections = param.groups[param.joined][0].split("|") if param.sections else ()
        return [self._folded_size(section) for section in sections]

    def _folded_size(self, axes: str) -> int:
        return prod(self.size(axis) for axis in axes.split())
