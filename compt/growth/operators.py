"""Grow models along named axes, one parameter after the other.

:class:`AxisGrower` is the base that most growers share. The functions are also for
those that grow whole models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from compt.errors import GrowthError
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

DepthMap = Callable[[int, int, int], int]
"""(target block, source depth, target depth) -> the source block that fills it."""

ROTARY_HINT = ": grow the number of heads instead (rotary positions allow nothing else)."


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


def source_block(block: int, source_depth: int, target_depth: int) -> int:
    """Return the source block that fills a target block when blocks are repeated in place.

    It is floor(i L_s / L_t), onto for every L_s <= L_t. With round() the last blocks
    would ask for one that the source does not have.
    """
    return block * source_depth // target_depth


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, tied ones under each of their names, detached."""
    params = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in (params | buffers).items()}


def matching(
    param: ParamAxes, source: Architecture, target: Architecture, pick: DepthMap = source_block
) -> ParamAxes | None:
    """Return the source parameter from which a target parameter grows, None if there is none."""
    if param.scope is None or param.block is None:
        return source.params.get(param.template)
    depth = source.depths.get(param.scope)
    if depth is None:
        return None
    start = int(param.scope in target.first_blocks)
    if param.block < start:
        return source.params.get(param.template.format(block=param.block))
    if depth == start:
        return None
    depths = depth - start, target.depths[param.scope] - start
    block = _pick(pick, param.block - start, *depths, target.periods.get(param.scope, 1))
    return source.params.get(param.template.format(block=start + block))


def _pick(pick: DepthMap, block: int, source_depth: int, target_depth: int, period: int) -> int:
    """Return the source block that fills a target block of the same kind.

    Kinds come again after each period, so that periods are picked. The source's last may lack
    blocks, which come from the one before; what the target has beyond whole periods repeats the
    last.
    """
    source_periods = ceil(source_depth / period)
    target_periods = max(target_depth // period, source_periods)
    index = min(block // period, target_periods - 1)
    picked = period * pick(index, source_periods, target_periods) + block % period
    return picked if picked < source_depth else picked - period


def starts_anew(param: ParamAxes, source: Architecture, target: Architecture) -> bool:
    """Return whether a parameter is of a block for which the source has none but the first.

    That one differs from all others (``{first}``), so that nothing could grow from it.
    """
    scope = param.scope
    return bool(param.block) and scope in target.first_blocks and source.depths.get(scope) == 1


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


def check_growable(source: Architecture, target: Architecture) -> None:
    """Raise GrowthError unless every axis of the target is the source's or may grow from it.

    The error names tensor, axis and sizes.
    """
    for scope, depth in source.depths.items():
        if depth > target.depths.get(scope, 0):
            raise GrowthError(
                f"'{scope}' would shrink from {depth} to {target.depths.get(scope, 0)} blocks.",
                do="Order the chain from small to large.",
            )
    for param in target.params.values():
        if param.kind == "constant" or starts_anew(param, source, target):
            continue
        match = matching(param, source, target)
        if param.tied_to:
            # Its shape is its owner's, whose axes are checked; it may have no match, as
            # where weights are tied in the target alone.
            _check_tie(param, match, source, target)
        elif match is None:
            raise GrowthError(
                f"The source has no tensor that could grow into '{param.name}' "
                f"({source.module} -> {target.module}).",
                do="Use members of one design, or grower=dict(type='scratch').",
            )
        else:
            _check_axes(param, match, source, target)


def _check_tie(
    param: ParamAxes, match: ParamAxes | None, source: Architecture, target: Architecture
) -> None:
    """Raise GrowthError where the target has one tensor and the source two in its place."""
    owner = matching(target.params[str(param.tied_to)], source, target)
    if match and owner and (match.tied_to or match.name) != (owner.tied_to or owner.name):
        raise GrowthError(
            f"'{param.name}' is tied to '{param.tied_to}' in the target, but not in the source: "
            "one tensor cannot hold the values of two.",
            do="Tie them in all members, in none, or up to one member: a tied tensor can grow into "
            "two.",
        )


def _check_axes(
    param: ParamAxes, match: ParamAxes, source: Architecture, target: Architecture
) -> None:
    """Raise GrowthError unless a parameter's axes are its match's and none of them shrinks."""
    if param.groups != match.groups:
        raise GrowthError(
            f"'{param.name}' has the axes {param.groups} in the target and {match.groups} in the "
            "source.",
            do="Use members of one design, or grower=dict(type='scratch').",
        )
    for axis in param.axes:
        small, large = source.size(axis), target.size(axis)
        if large < small:
            raise GrowthError(
                f"'{param.name}': the axis '{axis}' would shrink from {small} to {large}.",
                do="Order the chain from small to large.",
            )
        if large > small and target.roles.get(axis, "fixed") == "fixed":
            hint = ROTARY_HINT if axis.endswith("head_dim") else "."
            raise GrowthError(
                f"'{param.name}': the axis '{axis}' changes from {small} to {large}, and it cannot "
                "grow.",
                do=f"Keep '{axis}' the same in all members{hint}",
            )


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
        small, large = tensors_of(source), tensors_of(target)
        maps = self.prepare(small, {"source": source_arch, "target": target_arch}, generator)
        equal_sizes = (source_arch.sizes, source_arch.depths) == (
            target_arch.sizes,
            target_arch.depths,
        )
        statuses: dict[str, Status] = {}
        tensors: dict[str, Tensor] = {}
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
                tensors[name] = self._new_value(large[name], alone)
                statuses[name] = "initialised"
                continue
            repeat = match.name in used
            pair = ParamPair(param, match, source_arch, target_arch, generator, repeat, maps)
            if equal_sizes and pair.multiplier == 1:  # not even float64 and back may touch a bit
                tensors[name] = small[match.name].to(large[name].dtype, copy=True)
            else:
                tensors[name] = self._value(small[match.name], large[name], pair)
            statuses[name] = _status(tensors[name], small[match.name], large[name])
            used.add(match.name)
        reasons = [] if equal_sizes else self.why_not_preserving(source_arch, target_arch)
        reasons = reasons or new_block_reasons(source_arch, target_arch)
        return Growth(
            params=statuses,
            tensors=tensors,
            dropped=tuple(name for name in source_arch.params if name not in used),
            function_preserving=not reasons,
            reason="; ".join(reasons),
        )

    def _value(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Grow one tensor, [memory order] -> the target's shape and number format.

        It is grown in float64: shares of copies then add up to what they were shared out
        of, in every number format.
        """
        small = source.double()
        if pair.multiplier != 1:
            offset = pair.param.gain_offset
            small = (small + offset) * pair.multiplier - offset
        return by_section(self._expand, small, target.double(), pair).to(target.dtype)

    def _expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the grown value, unfolded, finished where its block is a new one."""
        # A copy, as growers may write into it and init_new_block needs the fresh target.
        value = self.expand(source, target.clone(), pair)
        return self.init_new_block(value, target, pair) if pair.repeat else value

    def _new_value(self, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the fresh value of a parameter that nothing can grow into, in a new block."""

        def finish(value: Tensor, fresh: Tensor, section: ParamPair) -> Tensor:
            return self.init_new_block(value, fresh, section)

        fresh = target.double()
        return by_section(finish, fresh, fresh, pair).to(target.dtype)


def by_section(
    grow: Callable[[Tensor, Tensor, ParamPair], Tensor],
    source: Tensor,
    target: Tensor,
    pair: ParamPair,
) -> Tensor:
    """Grow a tensor unfolded and, where it concatenates several, one section after the other.

    Axes that are folded must not run into one another when they grow, and neither must sections.

    Args:
        grow: makes a grown value of an unfolded source and target and their pair.
        source: the tensor, in the shape that it has in memory.
        target: likewise the one whose shape the result has.
        pair: of the whole tensors.
    """
    param, source_param = pair.param, pair.source_param
    if not param.sections:
        # Clones, as growers may write into them.
        small = source.reshape(pair.source.shape(source_param)).clone()
        fresh = target.reshape(pair.target.shape(param)).clone()
        return grow(small, fresh, pair).reshape(target.shape)
    pieces = zip(
        source.split(pair.source.section_lengths(source_param), dim=param.joined),
        target.split(pair.target.section_lengths(param), dim=param.joined),
        param.sections,
        source_param.sections,
        strict=True,
    )
    values = [
        by_section(grow, small, fresh, replace(pair, param=section, source_param=source_section))
        for small, fresh, section, source_section in pieces
    ]
    return torch.cat(values, dim=param.joined)


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
