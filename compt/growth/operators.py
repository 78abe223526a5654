"""Growing along named axes, parameter by parameter: the base that most growers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compt.errors import GrowthError
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
HEAD_DIM = ": grow the number of heads instead (rotary positions allow nothing else)."


@dataclass(frozen=True)
class ParamPair:
    """Where a value is grown: one target parameter and the source parameter it comes from.

    ``repeat`` is True in a block whose source block has already filled an earlier block. ``maps``
    is what the grower's ``prepare`` returned.
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
        """Index of the leading part of the unfolded target that is as large as the unfolded
        source.
        """
        return tuple(slice(0, n) for n in self.source.shape(self.source_param))


def source_block(block: int, source_depth: int, target_depth: int) -> int:
    """The source block that fills a target block: floor(i L_s / L_t), onto for every L_s <= L_t."""
    return block * source_depth // target_depth


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, tied ones under each of their names, detached."""
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )
    return {name: tensor.detach() for name, tensor in named.items()}


def matching(
    param: ParamAxes, source: Architecture, target: Architecture, pick: DepthMap = source_block
) -> ParamAxes | None:
    """The source parameter from which a target parameter grows, None if the source has none."""
    name = param.template
    if param.scope is not None and param.block is not None:
        depth = source.depths.get(param.scope)
        if depth is None:
            return None
        name = param.template.format(block=pick(param.block, depth, target.depths[param.scope]))
    return source.params.get(name)


def writes_stream(param: ParamAxes, arch: Architecture) -> bool:
    """Whether a parameter writes a residual stream: zeroed in a new block, the block passes its
    input on.
    """
    return any(
        direction == "writes" and arch.roles.get(axis) == "stream"
        for axis, direction in param.directions
    )


def reads_for_table(norm: ParamAxes, arch: Architecture) -> bool:
    """Whether the one reader of a norm grows as a writer of the norm's stream, being tied to
    one.
    """
    reader = arch.params.get(norm.read_by or "")
    owner = arch.params.get(reader.tied_to or "") if reader else None
    return owner is not None and not norm.writes and (norm.norm_axis, "writes") in owner.directions


def check_growable(source: Architecture, target: Architecture) -> None:
    """Raise GrowthError, naming tensor, axis and sizes, unless every target axis is the source's or
    grows.
    """
    for scope, depth in source.depths.items():
        if depth > target.depths.get(scope, 0):
            raise GrowthError(
                f"'{scope}' would shrink from {depth} to {target.depths.get(scope, 0)} blocks.",
                do="Order the chain from small to large.",
            )
    for param in target.params.values():
        if param.kind == "constant":
            continue
        match = matching(param, source, target)
        if param.tied_to:
            _check_tie(param, match, source, target)
        elif match is None:
            raise GrowthError(
                f"The source has no tensor that could grow into '{param.name}' ({source.module} -> {target.module}).",
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
            do="Tie them in all members, in none, or up to one member: a tied tensor can grow into two.",
        )


def _check_axes(
    param: ParamAxes, match: ParamAxes, source: Architecture, target: Architecture
) -> None:
    if param.groups != match.groups:
        raise GrowthError(
            f"'{param.name}' has the axes {param.groups} in the target and {match.groups} in the source.",
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
            raise GrowthError(
                f"'{param.name}': the axis '{axis}' changes from {small} to {large}, and it cannot grow.",
                do=f"Keep '{axis}' the same in all members"
                + (HEAD_DIM if axis.endswith("head_dim") else "."),
            )


class AxisGrower(Grower):
    """Grow every parameter on its own, from its named axes; blocks are repeated in place to add
    depth.

    Subclasses write :meth:`expand`, for the width; :meth:`source_block_index` and :meth:`init_new_block` say what depth
    does, :meth:`prepare` and :meth:`why_not_preserving` are there for those that need them.
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
        """Return the grown value from the unfolded source and the unfolded, freshly initialised
        target.

        Both are float64 copies with one dimension per atomic axis; the result has the target's
        shape.
        """

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """The source block that fills a target block; onto, so that no source block is lost."""
        return source_block(block, source_depth, target_depth)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Finish a grown value, [..] as expanded, in a block that repeats a source block; by
        default it is a copy.
        """
        return value

    def without_noise(self) -> AxisGrower:
        """This grower with nothing random in the parts that are inherited, for what must follow the
        same maps.
        """
        return self

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Why this grower does not keep the function of this pair; an empty list where it does."""
        return (
            ["this grower does not aim to preserve the function"]
            if not self.function_preserving
            else []
        )

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
        """Grow each target parameter from the source parameter with the same axes and the matching
        block.
        """
        small, large = tensors_of(source), tensors_of(target)
        maps = self.prepare(small, {"source": source_arch, "target": target_arch}, generator)
        same = source_arch.sizes == target_arch.sizes and source_arch.depths == target_arch.depths
        params: dict[str, Status] = {}
        tensors: dict[str, Tensor] = {}
        used: set[str] = set()
        for name, param in target_arch.params.items():
            match = matching(param, source_arch, target_arch, self.source_block_index)
            if match is not None and (param.tied_to or param.kind == "constant"):
                used.add(match.name)
            if param.tied_to:
                params[name] = "shared"
            elif param.kind == "constant" or match is None:
                params[name] = "initialised"
            else:
                pair = ParamPair(
                    param, match, source_arch, target_arch, generator, match.name in used, maps
                )
                value = (
                    small[match.name].clone()
                    if same
                    else self._value(small[match.name], large[name], pair)
                )
                value = value.to(large[name].dtype)
                used.add(match.name)
                params[name] = status(value, small[match.name])
                if params[name] == "expanded" and torch.equal(value, large[name]):
                    params[name] = "initialised"
                tensors[name] = value
        why = [] if same else self.why_not_preserving(source_arch, target_arch)
        return Growth(
            params=params,
            tensors=tensors,
            dropped=tuple(n for n in source_arch.params if n not in used),
            function_preserving=not why,
            reason="; ".join(why),
        )

    def _value(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        small = source.double().reshape(pair.source.shape(pair.source_param)).clone()
        large = target.double().reshape(pair.target.shape(pair.param)).clone()
        value = self.expand(small, large.clone(), pair)
        return (self.init_new_block(value, large, pair) if pair.repeat else value).reshape(
            target.shape
        )


def status(value: Tensor, source: Tensor) -> Status:
    """Tell how a grown value relates to its source: equal, holding more, or zeroed."""
    if value.shape == source.shape and torch.equal(value, source.to(value.dtype)):
        return "copied"
    return "expanded" if value.any() or not source.any() else "initialised"
