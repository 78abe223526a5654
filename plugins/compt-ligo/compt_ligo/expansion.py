"""The weights of a larger model, as a function of a smaller one's weights and of maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from compt import Architecture, ParamAxes, matching, writes_stream
from compt_ligo.maps import depth_mix, width_maps

Key: TypeAlias = tuple[str, str]
"""The name of a map, (axis, ``"writes"`` or ``"reads"``) or (template, ``"mix"``)."""
Maps: TypeAlias = dict[Key, Tensor]


@dataclass(frozen=True)
class Bundle:
    """Target parameters that grow as one.

    They are those of a template in a stack that deepens, otherwise a single one.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    picks: tuple[int | None, ...]
    """The index in ``sources`` that each of ``names`` starts from, None where it starts at 0."""
    along: tuple[tuple[int, Key], ...]
    """The dimensions of the unfolded tensor that grow, each with its map."""
    mix: Key | None
    """The map of the stack's depth, if it deepens."""
    shape: tuple[int, ...]
    """The shape of the unfolded source."""
    offset: float
    """The number that a norm adds to its gain, as the sum is what grows."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """Return the maps that it needs, none where it is a plain copy."""
        return (*(key for _, key in self.along), *([self.mix] if self.mix else []))


class Pair:
    """Two architectures, of which the target's parameters grow from the source's through maps."""

    def __init__(self, source: Architecture, target: Architecture) -> None:
        self.source, self.target = source, target

    def bundles(self, integers: Set[str] = frozenset()) -> list[Bundle]:
        """Return a bundle for every target parameter or, where its stack deepens, every template.

        Args:
            integers: names of source tensors of integers, which are copied where their shape stays,
                and else left out.
        """
        done: set[str] = set()
        bundles = []
        for param in self.target.params.values():
            match = matching(param, self.source, self.target)
            if param.name in done or param.tied_to or param.kind == "constant" or match is None:
                continue
            if match.name in integers and any(map(self.grows, param.axes)):
                continue
            if self._deepens(param) and match.name not in integers:
                bundle = self._stack(param)
            else:
                bundle = self._bundle(param, (param,), (match.name,), (0,), None)
            bundles.append(bundle)
            done |= set(bundle.names)
        return bundles

    def maps(self, bundles: Sequence[Bundle], spread: float, generator: torch.Generator) -> Maps:
        """Return the maps that the bundles need, untrained, in float64 on the CPU."""
        maps: Maps = {
            bundle.mix: depth_mix(bundle.picks, len(bundle.sources))
            for bundle in bundles
            if bundle.mix
        }
        needed = {key for bundle in bundles for _, key in bundle.along}
        # sorted, so that one seed draws the same maps whatever the hash seed
        for axis in sorted({axis for axis, _ in needed}):
            isometry = self.target.roles.get(axis) == "output"
            sizes = self.source.size(axis), self.target.size(axis)
            pair = width_maps(*sizes, isometry=isometry, spread=spread, generator=generator)
            by_use = zip(("writes", "reads"), pair, strict=True)
            maps |= {(axis, use): value for use, value in by_use if (axis, use) in needed}
        return maps

    def grows(self, axis: str) -> bool:
        """Return whether the axis is longer in the target."""
        return self.source.size(axis) != self.target.size(axis)

    def passes_to_table(self, norm: ParamAxes) -> bool:
        """Return whether all that reads a norm is tied to a writer of the norm's axis.

        One tensor cannot be copied as a writer and take shares as a reader: the norm takes them.
        """
        reader = self.target.params.get(norm.read_by or "")
        owner = self.target.params.get(reader.tied_to or "") if reader else None
        if owner is None or norm.writes:
            return False
        return (norm.norm_axis, "writes") in owner.directions

    def _deepens(self, param: ParamAxes) -> bool:
        scope = param.scope
        return scope is not None and self.target.depths[scope] > self.source.depths[scope]

    def _stack(self, param: ParamAxes) -> Bundle:
        """Return all parameters of a template, mixed from all that the source has of it."""
        depth = self.source.depths[str(param.scope)]
        named = [self.source.params.get(param.template.format(block=i)) for i in range(depth)]
        sources = tuple(p.name for p in named if p is not None and p.groups == param.groups)
        members = tuple(
            p for p in self.target.params.values() if p.template == param.template and not p.tied_to
        )
        picks = tuple(self._pick(member, sources) for member in members)
        return self._bundle(param, members, sources, picks, (param.template, "mix"))

    def _pick(self, param: ParamAxes, sources: Sequence[str]) -> int | None:
        """Return the index of the source that a parameter starts from.

        It is None where a repeated block would write the stream once more.
        """
        match = matching(param, self.source, self.target)
        assert match is not None
        if self._repeats(param) and writes_stream(param, self.target):
            return None
        return sources.index(match.name)

    def _repeats(self, param: ParamAxes) -> bool:
        """Return whether an earlier block starts from the same source block."""
        match = matching(param, self.source, self.target)
        earlier = (
            self.target.params.get(param.template.format(block=block))
            for block in range(int(param.block or 0))
        )
        return any(
            other is not None and matching(other, self.source, self.target) == match
            for other in earlier
        )

    def _bundle(
        self,
        param: ParamAxes,
        members: Sequence[ParamAxes],
        sources: tuple[str, ...],
        picks: tuple[int | None, ...],
        mix: Key | None,
    ) -> Bundle:
        along = tuple(
            (dim, self._key(param, axis, use))
            for dim, (axis, use) in _dimensions(param)
            if self.grows(axis)
        )
        return Bundle(
            names=tuple(member.name for member in members),
            sources=sources,
            picks=picks,
            along=along,
            mix=mix,
            shape=self.source.shape(param),
            offset=1.0 if param.kind.endswith("offset") else 0.0,
        )

    def _key(self, param: ParamAxes, axis: str, use: str) -> Key:
        """Return the map of one axis of a parameter.

        Gains, biases and factors, which neither read nor write it, follow what is written.
        """
        if param.norm_axis and self.passes_to_table(param):
            return axis, "reads"
        return axis, use or "writes"

    def why_not_preserving(self) -> list[str]:
        """Return why the untrained maps change the function, an empty list where they keep it."""
        params = self.target.params.values()
        reasons = (reason for param in params for reason in self._reasons_of(param))
        # blocks of a stack have one template, and so one reason
        return list(dict.fromkeys(reasons))

    def _reasons_of(self, param: ParamAxes) -> Iterator[str]:
        """Yield why a parameter changes the function."""
        name = f"'{param.template}'"
        if param.tied_to:
            for axis in self._torn(param):
                yield f"{name} is tied, and nothing makes up for it along '{axis}'"
            return
        match = matching(param, self.source, self.target)
        if match is not None and match.multiplier != param.multiplier:
            yield f"{name} is multiplied by a constant that is another in the source"
        in_place = param.norm_axis in param.axes and param.writes
        if in_place and self._deepens(param) and not writes_stream(param, self.target):
            yield f"{name} normalises the stream itself, in new blocks too"
        yield from self._reasons_of_factor(param, name)

    def _reasons_of_factor(self, param: ParamAxes, name: str) -> Iterator[str]:
        """Yield why a norm or a factor changes the function."""
        for axis in (param.norm_axis or "").split("+"):
            if axis and self.target.size(axis) % self.source.size(axis):
                multiples = f"exact at multiples of {self.source.size(axis)} only"
                yield f"{name} normalises over '{axis}': {multiples}"
        if param.norm_axis or param.kind == "scale":
            for axis in param.axes:
                if self.target.roles.get(axis) == "output" and self.grows(axis):
                    yield f"{name} scales each of '{axis}', whose copies differ in size"

    def _torn(self, tied: ParamAxes) -> list[str]:
        """Return the growing axes that a tied parameter uses otherwise than its owner.

        Those along which a norm takes the shares are left out.
        """
        owner = self.target.params[str(tied.tied_to)]
        norms = [p for p in self.target.params.values() if p.read_by == tied.name]
        helped = {norm.norm_axis for norm in norms if self.passes_to_table(norm)}
        differ = {axis for axis, _ in {*owner.directions} ^ {*tied.directions} if self.grows(axis)}
        return sorted(differ - helped)


def _dimensions(param: ParamAxes) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield the dimensions of the unfolded tensor, each with its axis and how that is used.

    A concatenation is one dimension, whose parts do not grow; it is left out.
    """
    if not param.sections:
        yield from enumerate(param.directions)
        return
    uses = dict(param.directions)
    for dim, axis in enumerate(axis for group in param.groups for axis in group):
        if axis in uses:
            yield dim, (axis, uses[axis])


class Expansion:
    """The target parameters that come from the source, as a differentiable function of the maps.

    Args:
        bundles: what grows.
        source: the tensors of the source.
        target: the tensors of the target, which lend shape, dtype and device.
        dtype: of the maps and of all that is computed with them.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        source: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        dtype: torch.dtype,
    ) -> None:
        self.like = target
        self.plain = {
            bundle.names[0]: source[bundle.sources[0]].clone().to(target[bundle.names[0]])
            for bundle in bundles
            if not bundle.keys
        }
        self.grown: list[tuple[Bundle, Tensor]] = []
        for bundle in bundles:
            if bundle.keys:
                blocks = [source[name].to(dtype).reshape(bundle.shape) for name in bundle.sources]
                self.grown.append((bundle, torch.stack(blocks) + bundle.offset))

    def __call__(self, maps: Mapping[Key, Tensor]) -> dict[str, Tensor]:
        """Return the values by name, in the shapes and dtypes of the target."""
        values = dict(self.plain)
        for bundle, stack in self.grown:
            grown = _expand(bundle, stack, maps).unbind()
            for name, value in zip(bundle.names, grown, strict=True):
                values[name] = value.reshape(self.like[name].shape).to(self.like[name])
        return values


def _expand(bundle: Bundle, stack: Tensor, maps: Mapping[Key, Tensor]) -> Tensor:
    """Mix the blocks, then map each axis, [L_s, S_1, S_2, ..] -> [L_t, T_1, T_2, ..]."""
    if bundle.mix:
        stack = torch.tensordot(maps[bundle.mix], stack, dims=1)
    for dim, key in bundle.along:
        stack = torch.tensordot(maps[key], stack.movedim(dim + 1, 0), dims=1).movedim(0, dim + 1)
    return stack - bundle.offset
