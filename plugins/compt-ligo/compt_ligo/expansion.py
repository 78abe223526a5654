"""From the weights of a small model and the maps to the weights of a larger one, and what that owes
to whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from compt import Architecture, ParamAxes, matching, source_block, writes_stream
from compt_ligo.maps import depth_mix, width_maps

Key: TypeAlias = tuple[str, str]
"""Names a map: (axis, ``"writes"`` or ``"reads"``), or (template, ``"mix"``)."""
Maps: TypeAlias = dict[Key, Tensor]


@dataclass(frozen=True)
class Part:
    """Target parameters that grow as one: those of a template in a stack that deepens, otherwise a
    single one.

    ``picks`` holds, for each of ``names``, the index in ``sources`` that it starts from; None where
    it starts at 0.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    picks: tuple[int | None, ...]
    along: tuple[tuple[int, Key], ...]
    """Dimensions of the unfolded tensor that grow, each with its map."""
    mix: Key | None
    shape: tuple[int, ...]
    """Of the unfolded source."""
    offset: float
    """What a norm adds to its gain: the sum is what grows."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """The maps it needs; none where it is a plain copy."""
        return (*(key for _, key in self.along), *([self.mix] if self.mix else []))


class Pair:
    """Two architectures: which parameters of the target grow from which of the source, through
    which maps.
    """

    def __init__(self, source: Architecture, target: Architecture) -> None:
        self.source, self.target = source, target

    def parts(self, whole: Set[str] = frozenset()) -> list[Part]:
        """One part for every target parameter or, where its stack deepens, for every template.

        ``whole`` names source tensors of integers, which are copied where their shape stays, and
        else left out.
        """
        done: set[str] = set()
        parts = []
        for param in self.target.params.values():
            match = matching(param, self.source, self.target)
            if param.name in done or param.tied_to or param.kind == "constant" or match is None:
                continue
            if match.name in whole and any(map(self.grows, param.axes)):
                continue
            mixed = self._deepens(param) and match.name not in whole
            parts.append(
                self._stack(param)
                if mixed
                else self._part(param, (param,), (match.name,), (0,), None)
            )
            done |= set(parts[-1].names)
        return parts

    def maps(self, parts: Sequence[Part], spread: float, generator: torch.Generator) -> Maps:
        """The maps that the parts need, untrained: float64, drawn on the CPU in one order."""
        maps: Maps = {
            part.mix: depth_mix(part.picks, len(part.sources)) for part in parts if part.mix
        }
        needed = {key for part in parts for _, key in part.along}
        for axis in sorted({axis for axis, _ in needed}):
            isometry = self.target.roles.get(axis) == "output"
            sizes = self.source.size(axis), self.target.size(axis)
            pair = width_maps(*sizes, isometry=isometry, spread=spread, generator=generator)
            both = zip(("writes", "reads"), pair, strict=True)
            maps |= {(axis, use): value for use, value in both if (axis, use) in needed}
        return maps

    def grows(self, axis: str) -> bool:
        """Whether the axis is longer in the target."""
        return self.source.size(axis) != self.target.size(axis)

    def passes_to_table(self, norm: ParamAxes) -> bool:
        """Whether all that reads a norm is tied to a writer of its axis, and so cannot take shares
        of it.

        The norm takes the shares instead.
        """
        reader = self.target.params.get(norm.read_by or "")
        owner = self.target.params.get(reader.tied_to or "") if reader else None
        return (
            owner is not None and not norm.writes and (norm.norm_axis, "writes") in owner.directions
        )

    def _deepens(self, param: ParamAxes) -> bool:
        scope = param.scope
        return scope is not None and self.target.depths[scope] > self.source.depths[scope]

    def _stack(self, param: ParamAxes) -> Part:
        """All parameters of a template, mixed from all that the source has of it."""
        names = (
            param.template.format(block=i) for i in range(self.source.depths[str(param.scope)])
        )
        sources = tuple(
            n
            for n in names
            if n in self.source.params and self.source.params[n].groups == param.groups
        )
        members = tuple(
            p for p in self.target.params.values() if p.template == param.template and not p.tied_to
        )
        picks = tuple(self._pick(member, sources) for member in members)
        return self._part(param, members, sources, picks, (param.template, "mix"))

    def _pick(self, param: ParamAxes, sources: Sequence[str]) -> int | None:
        """The index of the source it starts from; None where a repeated block would write the
        stream once more.
        """
        match = matching(param, self.source, self.target)
        assert match is not None
        return (
            None
            if self._repeats(param) and writes_stream(param, self.target)
            else sources.index(match.name)
        )

    def _repeats(self, param: ParamAxes) -> bool:
        """Whether the block before it starts from the same source block."""
        block, depths = int(param.block or 0), (self.source.depths, self.target.depths)
        small, large = (depth[str(param.scope)] for depth in depths)
        return block > 0 and source_block(block, small, large) == source_block(
            block - 1, small, large
        )

    def _part(
        self,
        param: ParamAxes,
        members: Sequence[ParamAxes],
        sources: tuple[str, ...],
        picks: tuple[int | None, ...],
        mix: Key | None,
    ) -> Part:
        return Part(
            names=tuple(member.name for member in members),
            sources=sources,
            picks=picks,
            along=tuple(
                (i, self._key(param, *d))
                for i, d in enumerate(param.directions)
                if self.grows(d[0])
            ),
            mix=mix,
            shape=self.source.shape(param),
            offset=1.0 if param.kind.endswith("offset") else 0.0,
        )

    def _key(self, param: ParamAxes, axis: str, use: str) -> Key:
        """The map of one axis of a parameter; gains, biases and factors follow what is written."""
        if param.norm_axis and self.passes_to_table(param):
            return axis, "reads"
        return axis, use or "writes"

    def why_not_preserving(self) -> list[str]:
        """Why the untrained maps change the function; an empty list where they keep it."""
        found: dict[str, None] = {}
        for param in self.target.params.values():
            name = f"'{param.template}'"
            if param.tied_to:
                found |= {
                    f"{name} is tied, and nothing makes up for it along '{a}'": None
                    for a in self._torn(param)
                }
                continue
            for axis in (param.norm_axis or "").split("+"):
                if axis and self.target.size(axis) % self.source.size(axis):
                    whole = f"exact at multiples of {self.source.size(axis)} only"
                    found[f"{name} normalises over '{axis}': {whole}"] = None
            if param.norm_axis or param.kind == "scale":
                features = [
                    a for a in param.axes if self.target.roles.get(a) == "output" and self.grows(a)
                ]
                found |= {
                    f"{name} scales each of '{axis}', whose copies differ in size": None
                    for axis in features
                }
        return list(found)

    def _torn(self, tied: ParamAxes) -> list[str]:
        """Growing axes that a tied parameter uses otherwise than its owner, with no norm to take
        the shares.
        """
        owner = self.target.params[str(tied.tied_to)]
        norms = [p for p in self.target.params.values() if p.read_by == tied.name]
        helped = {norm.norm_axis for norm in norms if self.passes_to_table(norm)}
        differ = {axis for axis, _ in {*owner.directions} ^ {*tied.directions} if self.grows(axis)}
        return sorted(differ - helped)


class Expansion:
    """All target parameters that come from the source, as a differentiable function of the maps.

    Args:
        parts: what grows.
        source: the tensors of the source.
        target: the tensors of the target, which lend shape, dtype and device.
        dtype: of the maps and of all that is computed with them.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        source: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        dtype: torch.dtype,
    ) -> None:
        self.like = target
        self.plain = {
            p.names[0]: source[p.sources[0]].clone().to(target[p.names[0]])
            for p in parts
            if not p.keys
        }
        self.grown = [
            (
                part,
                torch.stack([source[name].to(dtype).reshape(part.shape) for name in part.sources])
                + part.offset,
            )
            for part in parts
            if part.keys
        ]

    def __call__(self, maps: Mapping[Key, Tensor]) -> dict[str, Tensor]:
        """The values by name, in the shapes and dtypes of the target."""
        values = dict(self.plain)
        for part, stack in self.grown:
            for name, value in zip(part.names, _expand(part, stack, maps).unbind(), strict=True):
                values[name] = value.reshape(self.like[name].shape).to(self.like[name])
        return values


def _expand(part: Part, stack: Tensor, maps: Mapping[Key, Tensor]) -> Tensor:
    """Mix the blocks, then map each axis: [L_s, S_1, S_2, ..] -> [L_t, T_1, T_2, ..]."""
    if part.mix:
        stack = torch.tensordot(maps[part.mix], stack, dims=1)
    for dim, key in part.along:
        stack = torch.tensordot(maps[key], stack.movedim(dim + 1, 0), dims=1).movedim(0, dim + 1)
    return stack - part.offset
