"""Grow models along named axes, one parameter after the other.

:class:`AxisGrower` is the base that most growers share. The functions are also for
those that grow whole models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from compt.growth.matching import check_growable, matching, source_block, starts_anew
from compt.growth.new_blocks import ends_branch, new_block_reasons
from compt.interfaces import (
    Architecture,
    Grower,
    Growth,
    Objective,
    ParamAxes,
    Status,
    renamed_method,
)


@dataclass(frozen=True)
class ParamPair:
    """One target parameter and the source parameter that it grows from.

    ``repeat`` is True in a block whose source block has already filled an earlier
    block. ``maps`` is what the grower's ``prepare`` returned.
    """

    param: ParamAxes
    source_param: ParamAxes
    source: Architecture
    target: Architecture
    generator: torch.Generator
    repeat: bool
    maps: Any = None
    others: tuple[Tensor, ...] = ()
    """The source tensors that :meth:`AxisGrower.also_reads` names, unfolded as the source is."""

    @property
    def corner(self) -> tuple[slice, ...]:
        """Index of the unfolded target's leading part that has the unfolded source's shape."""
        return tuple(slice(0, length) for length in self.source.shape(self.source_param))

    @property
    def multiplier(self) -> float:
        """What the source has to be multiplied by where a constant changes with the size.

        A gain that makes up for a head which is tied to a table makes up for the table's too.
        """
        constants = [(self.source_param, self.source), (self.param, self.target)]
        if reads_for_table(self.param, self.target):
            small, large = (_through_table(norm, arch) for norm, arch in constants)
        else:
            small, large = (param.multiplier for param, _ in constants)
        return small / large


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, tied ones under each of their names, detached."""
    params = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in (params | buffers).items()}


def writes_stream(param: ParamAxes, arch: Architecture) -> bool:
    """Return whether a parameter is the last to act on what its block adds to a residual stream.

    Where all of a block's that are add nothing, the block passes its input on. Of a weight and the
    factor, gate or norm that it writes through it is the latter alone: with both at zero neither
    would ever learn. A norm of the stream itself, after the sum, is none.
    """
    return ends_branch(param, arch)


def writing_nothing(value: Tensor, param: ParamAxes) -> Tensor:
    """Return what a parameter that writes a stream holds where it writes nothing, as a new tensor.

    It is 0, but -1 for a norm that multiplies by 1 + its gain.
    """
    return torch.full_like(value, 0.0 - param.gain_offset)  # not -0.0


def reads_for_table(norm: ParamAxes, arch: Architecture) -> bool:
    """Return whether a norm's one reader is tied to a table that writes the norm's stream.

    Such a reader grows as the writer that it is tied to, and the norm has to make up
    for that.
    """
    reader = arch.params.get(norm.read_by or "")
    owner = arch.params.get(reader.tied_to or "") if reader else None
    return owner is not None and not norm.writes and (norm.norm_axis, "writes") in owner.directions


def _through_table(norm: ParamAxes, arch: Architecture) -> float:
    """Return the constants between a norm and its reader's results, in units of the table's.

    As a table the tensor grows with its own constant, which as a head it does not have.
    """
    head = arch.params[str(norm.read_by)]
    return norm.multiplier * head.multiplier / arch.params[str(head.tied_to)].multiplier


class AxisGrower(Grower):
    """Grow every parameter on its own, from its named axes, and repeat blocks to add depth.

    Subclasses write :meth:`expand`, for the width. :meth:`source_block_index` and
    :meth:`init_new_block` say what depth does; :meth:`prepare` and
    :meth:`why_not_preserving` are there for those that need them.
    """

    renamed_methods = {
        "pick": "source_block_index",
        "renew": "init_new_block",
        "obstacles": "why_not_preserving",
    }

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where an axis shrinks, a fixed axis changes, or a layer is missing."""
        check_growable(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where :meth:`source_block_index` cannot fill the target's depth."""

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Any:
        """Make what all parameters share, such as one map per axis, from the source's tensors."""
        return None

    @abstractmethod
    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the grown value of one parameter.

        Args:
            source: the unfolded source, a float64 copy with one dimension per atomic
                axis.
            target: likewise the freshly initialised target; the result has its shape.
            pair: axes and sizes of both, and what :meth:`prepare` returned.
        """

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block that fills a target block.

        The map must be onto, so that no source block is lost.
        """
        return source_block(block, source_depth, target_depth)

    def also_reads(self, pair: ParamPair) -> tuple[str, ...]:
        """Return the names of further source tensors that :meth:`expand` makes a value from.

        They have the axes of ``pair.source_param``, as those of another block have, and come in
        ``pair.others``.
        """
        return ()

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Finish a grown value in a block that repeats a source block, by default as a copy.

        Args:
            value: as :meth:`expand` returned it.
            target: the unfolded, freshly initialised target, of the same shape.
            pair: as for :meth:`expand`.
        """
        return value

    def without_noise(self) -> AxisGrower:
        """Return this grower with nothing random in what is inherited.

        An optimizer's state follows the same maps, and must not take noise for moments.
        """
        return self

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """List why this grower does not keep the function of this pair, if it does not."""
        if self.function_preserving:
            return []
        return ["this grower does not aim to preserve the function"]

    pick = renamed_method("pick", source_block_index)
    renew = renamed_method("renew", init_new_block)
    obstacles = renamed_method("obstacles", why_not_preserving)

    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        source_arch: Architecture,
        target_arch: Architecture,
        generator: torch.Generator,
        objective: Objective | None = None,
    ) -> Growth:
        """Grow each target parameter from the source's of the same axes and the matching block."""
        tensors: dict[str, Tensor] = {}
        growth = self.grow_tensors(
            tensors_of(source),
            tensors_of(target),
            source_arch=source_arch,
            target_arch=target_arch,
            generator=generator,
            take=tensors.__setitem__,
        )
        return replace(growth, tensors=tensors)

    def grow_tensors(
        self,
        source: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        *,
        source_arch: Architecture,
        target_arch: Architecture,
        generator: torch.Generator,
        take: Callable[[str, Tensor], None],
    ) -> Growth:
        """Grow one tensor after the other, each handed on before the next is looked up.

        Args:
            source: the smaller model's tensors, by name; may read each as it is asked for.
            target: likewise the larger model's, freshly initialised.
            source_arch: of the smaller model.
            target_arch: of the larger one.
            generator: of all that is random.
            take: is called with the name and the value of every tensor that is grown.

        Returns:
            The report, without tensors.
        """
        maps = self.prepare(source, {"source": source_arch, "target": target_arch}, generator)
        equal_sizes = (source_arch.sizes, source_arch.depths) == (
            target_arch.sizes,
            target_arch.depths,
        )
        statuses: dict[str, Status] = {}
        used: set[str] = set()
        for name, param in target_arch.params.items():
            match = matching(param, source_arch, target_arch, self.source_block_index)
            new = starts_anew(param, source_arch, target_arch)
            if param.tied_to or param.kind == "constant" or (match is None and not new):
                # A further name of a tied tensor gets no value: its owner's is its own,
                # and the source may use the two names otherwise.
                statuses[name] = "shared" if param.tied_to else "initialised"
                used |= {match.name} if match else set()
                continue
            if match is None:
                alone = ParamPair(param, param, target_arch, target_arch, generator, True, maps)
                take(name, self._new_value(target[name], alone))
                statuses[name] = "initialised"
                continue
            repeat = match.name in used
            pair = ParamPair(param, match, source_arch, target_arch, generator, repeat, maps)
            statuses[name] = self._grow_one(source, target, pair, take, as_is=equal_sizes)
            used.add(match.name)
        reasons = [] if equal_sizes else self.why_not_preserving(source_arch, target_arch)
        reasons = reasons or new_block_reasons(source_arch, target_arch)
        return Growth(
            params=statuses,
            dropped=tuple(name for name in source_arch.params if name not in used),
            function_preserving=not reasons,
            reason="; ".join(reasons),
        )

    def _grow_one(
        self,
        source: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        pair: ParamPair,
        take: Callable[[str, Tensor], None],
        *,
        as_is: bool,
    ) -> Status:
        """Grow one tensor from its match, hand it on, and keep nothing but its status."""
        name, small = pair.param.name, source[pair.source_param.name]
        if others := self.also_reads(pair):
            pair = replace(pair, others=tuple(source[other] for other in others))
        fresh = target[name]
        value = self._value(small, fresh, pair, as_is=as_is)
        take(name, value)
        return _status(value, small, fresh)

    def _value(self, source: Tensor, target: Tensor, pair: ParamPair, *, as_is: bool) -> Tensor:
        """Grow one tensor, [memory order] -> the target's shape and number format.

        It is grown in float64: shares of copies then add up to what they were shared out
        of, in every number format. With ``as_is`` nothing grows.
        """
        if as_is and pair.multiplier == 1:  # not even float64 and back may touch a bit
            return source.to(target.dtype, copy=True)
        if pair.multiplier != 1:
            offset = pair.param.gain_offset
            source = (source.double() + offset) * pair.multiplier - offset
            others = ((other.double() + offset) * pair.multiplier - offset for other in pair.others)
            pair = replace(pair, others=tuple(others))
        return by_section(self._expand, source, target, pair).to(target.dtype)

    def _expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the grown value, unfolded, finished where its block is a new one."""
        if not pair.repeat:
            return self.expand(source, target, pair)
        # A copy, as growers may write into it and init_new_block needs the fresh target.
        return self.init_new_block(self.expand(source, target.clone(), pair), target, pair)

    def _new_value(self, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the fresh value of a parameter that nothing can grow into, in a new block."""

        def finish(value: Tensor, fresh: Tensor, section: ParamPair) -> Tensor:
            return self.init_new_block(value, fresh, section)

        return by_section(finish, target, target, pair).to(target.dtype)


def by_section(
    grow: Callable[[Tensor, Tensor, ParamPair], Tensor],
    source: Tensor,
    target: Tensor,
    pair: ParamPair,
) -> Tensor:
    """Grow a tensor unfolded and, where it concatenates several, one section after the other.

    Axes that are folded must not run into one another when they grow, and neither must sections.

    Args:
        grow: makes a grown value of an unfolded source and target, float64 copies, and their pair.
        source: the tensor, in the shape that it has in memory.
        target: likewise the one whose shape the result has.
        pair: of the whole tensors.
    """
    param, source_param = pair.param, pair.source_param
    if not param.sections:
        # Copies, as growers may write into them, and no more of them than that: they may be large.
        small = source.reshape(pair.source.shape(source_param)).to(torch.float64, copy=True)
        fresh = target.reshape(pair.target.shape(param)).to(torch.float64, copy=True)
        if pair.others:
            others = tuple(other.double().reshape(small.shape) for other in pair.others)
            pair = replace(pair, others=others)
        return grow(small, fresh, pair).reshape(target.shape)
    pieces = zip(
        _split(source, source_param, pair.source),
        _split(target, param, pair.target),
        param.sections,
        source_param.sections,
        strict=True,
    )
    others_split = [_split(other, source_param, pair.source) for other in pair.others]
    values = []
    for index, (small, fresh, section, source_section) in enumerate(pieces):
        others = tuple(other[index] for other in others_split)
        of_section = replace(pair, param=section, source_param=source_section, others=others)
        values.append(by_section(grow, small, fresh, of_section))
    num_units = prod(map(pair.target.size, param.each))
    apart = [value.unflatten(param.joined, (num_units, -1)) for value in values]
    return torch.cat(apart, dim=param.joined + 1).flatten(param.joined, param.joined + 1)


def _split(tensor: Tensor, param: ParamAxes, arch: Architecture) -> list[Tensor]:
    """Return the sections of a tensor, each contiguous along the dimension that joins them."""
    num_units = prod(map(arch.size, param.each))
    lengths = [length // num_units for length in arch.section_lengths(param)]
    apart = tensor.unflatten(param.joined, (num_units, -1))
    sections = apart.split(lengths, dim=param.joined + 1)
    return [section.flatten(param.joined, param.joined + 1) for section in sections]


def status(value: Tensor, source: Tensor) -> Status:
    """Tell whether a grown value equals its source, holds more, or holds nothing of it."""
    if value.shape == source.shape and torch.equal(value, source.to(value.dtype)):
        return "copied"
    return "expanded" if value.any() or not source.any() else "initialised"


def _status(value: Tensor, source: Tensor, fresh: Tensor) -> Status:
    """Tell a grown value's status, also where nothing but the fresh value has come out."""
    relation = status(value, source)
    if relation == "expanded" and torch.equal(value, fresh):
        return "initialised"
    return relation
