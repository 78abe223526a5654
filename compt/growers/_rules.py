"""Make an axis of a model longer without another model, by one of several rules.

Shapes: S units of the axis before, T after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compt.errors import GrowthError
from compt.growth.matching import queries_over
from compt.growth.operators import ParamPair
from compt.interfaces import Architecture

MEAN_NOISE = 0.02
"""By how much new entries differ from the mean of the others, in units of their deviation."""


class Rule(ABC):
    """A way to make an axis longer."""

    def sizes(self, axis: str, source: Architecture, target: Architecture) -> dict[str, int]:
        """Return the sizes that change, of the axis and of those that make room for it."""
        return {axis: target.sizes[axis]}

    @abstractmethod
    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return a tensor with T entries along the axis, of the shape of ``fresh``.

        Args:
            value: the unfolded tensor, [.., S, ..].
            fresh: what the target has freshly initialised in its place, [.., T, ..].
            dim: the axis's.
            axis: its name.
            pair: the tensor before and after.
            noise: how much copies differ, in units of the tensor's rms.
        """

    def reasons(self, axis: str, source: Architecture, target: Architecture) -> list[str]:
        """List why the function of what is there already would change."""
        return []


class Fresh(Rule):
    """Append entries with the target's own initialisation."""

    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return the value, and what is fresh behind it."""
        num_old = value.shape[dim]
        return torch.cat([value, fresh.narrow(dim, num_old, fresh.shape[dim] - num_old)], dim)


class Mean(Rule):
    """Append entries near the mean of all others.

    As outputs they are then as likely as an average token, so that the others' odds hardly move.
    Source: Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021.
    """

    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return the value, and its mean behind it with a little noise."""
        shape = list(value.shape)
        shape[dim] = fresh.shape[dim] - value.shape[dim]
        deviation = value.std(dim, keepdim=True, correction=0)
        draw = torch.randn(shape, generator=pair.generator, dtype=value.dtype)
        new = value.mean(dim, keepdim=True) + MEAN_NOISE * deviation * draw
        return torch.cat([value, new], dim)


class Interpolate(Rule):
    """Stretch the entries along the axis, linearly, from the first to the last.

    Entry t of T is what would stand at ``t (S - 1) / (T - 1)`` of the old ones.
    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv 2010.11929, section 3.2.
    """

    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return the stretched value."""
        small, large = value.shape[dim], fresh.shape[dim]
        place_T = torch.linspace(0, small - 1, large, dtype=value.dtype)
        low_T = place_T.floor().long().clamp_max(max(small - 2, 0))
        share_T = (place_T - low_T).view(-1, *[1] * (value.ndim - 1 - dim))
        high_T = (low_T + 1).clamp_max(small - 1)
        low, high = value.index_select(dim, low_T), value.index_select(dim, high_T)
        stretched: Tensor = torch.lerp(low, high, share_T.expand_as(low))
        return stretched

    def reasons(self, axis: str, source: Architecture, target: Architecture) -> list[str]:
        """Return that every entry means another place than it did."""
        return [
            f"'{axis}' is interpolated from {source.sizes[axis]} to {target.sizes[axis]}, so what "
            "each place holds changes"
        ]


class Copy(Rule):
    """Let each unit be a copy of unit t mod S, where a model averages what its units make.

    So are the experts that a token chooses, whose weights sum to 1. A copy is chosen wherever its
    source is, so that as many times more have to be chosen (``Architecture.chosen``); a single unit
    may be copied any number of times, and what chooses among its copies is fresh. Copies get noise
    that sums to 0 where they write the residual stream, and so learn different things.
    Source: Sparse Upcycling, arXiv 2212.05055, for one unit.
    """

    def sizes(self, axis: str, source: Architecture, target: Architecture) -> dict[str, int]:
        """Return the number of units, and of those that are chosen."""
        names = [axis, target.chosen.get(axis)]
        return {name: target.sizes[name] for name in names if name}

    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return the copies."""
        small, large = value.shape[dim], fresh.shape[dim]
        written = {other for other, direction in pair.param.directions if direction == "writes"}
        if small == 1 and written <= {axis}:
            return fresh  # what chooses among copies of one
        copies = value.index_select(dim, torch.arange(large) % small)
        writes_stream = any(pair.source.roles.get(other) == "stream" for other in written)
        # Of copies of one unit a token may be given any, which then are not all there is.
        if not (noise and writes_stream) or small == 1 or large % small:
            return copies
        draw = torch.randn(copies.shape, generator=pair.generator, dtype=value.dtype)
        draw = draw.unflatten(dim, (large // small, small))
        draw = (draw - draw.mean(dim, keepdim=True)).flatten(dim, dim + 1)
        apart: Tensor = copies + noise * value.square().mean().sqrt() * draw
        return apart

    def reasons(self, axis: str, source: Architecture, target: Architecture) -> list[str]:
        """Name numbers of copies, or of chosen units, that change the average."""
        small, large = source.sizes[axis], target.sizes[axis]
        before = source.sizes.get(source.chosen.get(axis, ""), small)
        after = target.sizes.get(target.chosen.get(axis, ""), large)
        if small == 1 or (large % small == 0 and after * small == before * large):
            return []
        return [
            f"'{axis}' grows from {small} to {large} by copies, of which {after} are chosen, after "
            f"{before}: exact at whole multiples of both alike"
        ]


class Split(Rule):
    """Share the groups of units that an axis has out over more, smaller ones.

    Key/value heads are repeated, and their queries shared out: each query reads what it read.
    """

    def sizes(self, axis: str, source: Architecture, target: Architecture) -> dict[str, int]:
        """Return the sizes of the axis, and of the groups that are shared out."""
        group, small, large = _group(axis, source), source.sizes[axis], target.sizes[axis]
        size = source.sizes[group]
        if large % small or size % (large // small):
            raise GrowthError(
                f"'{axis}' cannot be split from {small} to {large} with {size} of '{group}' each.",
                do=f"Take a multiple of {small} that divides {small * size}.",
            )
        return {axis: large, group: small * size // large}

    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return the tensor with its groups cut, or its units repeated."""
        if value.numel() == fresh.numel():
            return value.reshape(fresh.shape)  # units and groups stand side by side
        return value.repeat_interleave(fresh.shape[dim] // value.shape[dim], dim)


def _group(axis: str, arch: Architecture) -> str:
    """Return the hidden axis that stands behind another in tensors, of which it has so many each.

    Raises:
        GrowthError: there is none.
    """
    for param in arch.params.values():
        for first, second in zip(param.axes, param.axes[1:], strict=False):
            if first == axis and arch.roles.get(second) == "hidden":
                return second
    raise GrowthError(
        f"'{axis}' has no groups that could be split.",
        do="Use another rule, or leave the axis out.",
    )


class Pad(Rule):
    """Give heads channels that bring nothing yet: new ones of queries are 0, and are not read.

    Queries grow by as much as the scale of scores falls, mostly 1 / sqrt(channels), so that scores
    stay. New channels of keys and values are fresh, by which the zeros learn.
    """

    def sizes(self, axis: str, source: Architecture, target: Architecture) -> dict[str, int]:
        """Return the number of channels.

        Raises:
            GrowthError: it is not known what makes queries, or a norm spans the channels.
        """
        if not queries_over(axis, source) or not queries_over(axis, target):
            raise GrowthError(
                f"'{axis}' cannot be padded: {target.module} turns or normalises what it counts, "
                "or its layout does not say what makes queries of it.",
                do="Use another rule, or leave the axis out.",
            )
        return super().sizes(axis, source, target)

    def lengthen(
        self, value: Tensor, fresh: Tensor, dim: int, axis: str, pair: ParamPair, noise: float
    ) -> Tensor:
        """Return the value and its new channels, of queries scaled up."""
        num_old = value.shape[dim]
        new = fresh.narrow(dim, num_old, fresh.shape[dim] - num_old).clone()
        small, large = pair.source_param.score_scale, pair.param.score_scale
        if small is not None and large is not None:
            value = value.clone()
            fused = pair.param.axes.index("3") if "3" in pair.param.axes else None
            queries, new_queries = (
                part if fused is None else part.select(fused, 0) for part in (value, new)
            )
            queries.mul_(small / large)
            new_queries.zero_()
        elif (axis, "reads") in pair.param.directions:
            new.zero_()
        return torch.cat([value, new], dim)


RULES: Mapping[str, Callable[[], Rule]] = {
    "fresh": Fresh,
    "mean": Mean,
    "interpolate": Interpolate,
    "copy": Copy,
    "split": Split,
    "pad": Pad,
}
"""By the name that configs have."""
