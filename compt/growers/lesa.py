"""Grow in depth by blocks that a small network predicts from their neighbours.

Shapes: L blocks of the source, weights [O, I], of which the concatenation [O, L I] has rank R; a
triple is a block with its two neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.errors import GrowthError
from compt.growers._depth_only import check_same_widths
from compt.growth.matching import matching
from compt.growth.operators import AxisGrower, ParamPair, tensors_of
from compt.interfaces import Architecture, Growth, Objective, ParamAxes, Status
from compt.registry import Range

FEWEST = 3
"""Blocks of a source that has a triple to learn from."""


class Lesa(AxisGrower):
    """Insert blocks between the last ones of the source, predicted from the two beside them.

    The weights of all blocks, one matrix a template, are concatenated and decomposed, U S V.
    In V each block has coordinates; a network of one hidden layer learns on the source's own
    triples what a block's are, given its neighbours', and then gives those of a block between
    two that have none between them. Gains, biases and all else that is no matrix is the mean of
    both neighbours. No data is needed and no training step charged: it takes seconds of the
    processor, which the growth's time has in it.

    New blocks are at work at once, so the function changes.

    Source: Yang et al., LESA, arXiv 2502.13794. Differs: the network adds to the mean of both
    neighbours, and begins with nothing to add, so that with few triples it stays near; it is
    as wide as ``hidden`` says, and trained on all columns at once.

    Args:
        steps: of Adam, on all triples of a template; 0 takes the mean of both neighbours.
        hidden: width of the network.
        lr: learning rate.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, Range(minimum=0)] = 200,
        hidden: Annotated[int, Range(minimum=1)] = 256,
        lr: Annotated[float, Range(positive=True)] = 1e-3,
    ) -> None:
        self.steps, self.hidden, self.lr = steps, hidden, lr

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where a width differs, or blocks have no neighbours to learn from."""
        super().check(source, target)
        check_same_widths("lesa", source, target)
        self.check_depth(source, target)

    def check_depth(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError for too few blocks, too many new ones, and blocks of several kinds."""
        for scope, depth in target.depths.items():
            small = source.depths.get(scope, depth)
            if depth == small:
                continue
            if scope in target.first_blocks or target.periods.get(scope, 1) > 1:
                raise GrowthError(
                    f"The grower lesa predicts a block from those beside it, and those of "
                    f"'{scope}' are of several kinds.",
                    do="Use grower=dict(type='stack').",
                )
            if small < FEWEST or depth > 2 * small - 1:
                few = f"Give the source {FEWEST} blocks at least"
                many = f"Give the target {2 * small - 1} blocks at most"
                raise GrowthError(
                    f"'{scope}' grows from {small} to {depth} blocks; lesa learns from "
                    f"{FEWEST} at least, and inserts one between two at most.",
                    do=f"{few if small < FEWEST else many}, or use grower=dict(type='stack').",
                )

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return the source, which has the target's width."""
        return source

    def source_block_index(self, block: int, source_depth: int, target_depth: int) -> int:
        """Return the source block; of a new one, which follows it, the lower neighbour."""
        first = 2 * source_depth - 1 - target_depth
        return block if block <= first else first + (block - first) // 2

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
        """Copy the source's blocks, and predict those between them."""
        growth = super().grow(
            source,
            target,
            source_arch=source_arch,
            target_arch=target_arch,
            generator=generator,
        )
        small, tensors = tensors_of(source), dict(growth.tensors)
        params: dict[str, Status] = dict(growth.params)
        for template, new in _inserted(self, source_arch, target_arch).items():
            depth = source_arch.depths[str(new[0][0].scope)]
            blocks = torch.stack([small[template.format(block=block)] for block in range(depth)])
            lower = [index for _, index in new]
            for (param, _), value in zip(new, self._between(blocks, lower, generator), strict=True):
                tensors[param.name] = value.to(tensors[param.name])
                params[param.name] = "expanded"
        return replace(growth, tensors=tensors, params=params)

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Return that predicted blocks change the function, where there are any."""
        return ["new blocks are predicted"] if source.depths != target.depths else []

    def _between(self, blocks: Tensor, lower: list[int], generator: torch.Generator) -> Tensor:
        """Return the tensors between some blocks and those above, [L, ...] -> [new, ...]."""
        if not blocks.is_floating_point():
            return blocks[lower]
        above = [index + 1 for index in lower]
        if blocks.ndim < 3 or not self.steps:
            return (blocks[lower] + blocks[above]) / 2
        matrices = blocks.flatten(2).float()
        joined = matrices.permute(1, 0, 2).flatten(1)
        left, sizes, right = torch.linalg.svd(joined, full_matrices=False)
        coordinates = right.view(len(sizes), len(blocks), -1).permute(1, 2, 0)
        network = Between(coordinates, self.hidden, generator)
        network.learn(coordinates, self.steps, self.lr)
        with torch.no_grad():
            predicted = network(coordinates[lower], coordinates[above])
        between: Tensor = (left * sizes) @ predicted.mT
        return between.view(len(lower), *blocks.shape[1:])


class Between:
    """Predict a block's coordinates [.., I, R] from those of its two neighbours.

    Args:
        coordinates: of all blocks, [L, I, R].
        hidden: width of the network.
        generator: of its first weights.
    """

    def __init__(self, coordinates: Tensor, hidden: int, generator: torch.Generator) -> None:
        rank = coordinates.shape[-1]
        self.scale = coordinates.square().mean().sqrt().clamp_min(1e-12)
        first = torch.randn(2 * rank, hidden, generator=generator) / sqrt(2 * rank)
        # The second is 0: what is predicted begins as the mean.
        weights = (first, torch.zeros(hidden), torch.zeros(hidden, rank))
        self.weights = [weight.to(coordinates.device).requires_grad_() for weight in weights]

    def __call__(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return what lies between, [N, I, R], [N, I, R] -> [N, I, R]."""
        first, bias, second = self.weights
        beside = torch.cat([lower, upper], dim=-1) / self.scale
        return (lower + upper) / 2 + self.scale * (F.gelu(beside @ first + bias) @ second)

    @torch.enable_grad()
    def learn(self, coordinates: Tensor, steps: int, lr: float) -> None:
        """Learn from the triples of blocks [L, I, R], by distance and by length."""
        lower, between, upper = coordinates[:-2], coordinates[1:-1], coordinates[2:]
        optimizer = torch.optim.Adam(self.weights, lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            predicted = self(lower, upper)
            distance = ((predicted - between) / self.scale).square().mean()
            lengths = (value.norm(dim=-1) for value in (predicted, between))
            loss = distance + torch.stack([*lengths]).diff(dim=0).div(self.scale).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _inserted(
    grower: Lesa, source: Architecture, target: Architecture
) -> dict[str, list[tuple[ParamAxes, int]]]:
    """Return the parameters of new blocks by template, each with its lower neighbour's index."""
    inserted: dict[str, list[tuple[ParamAxes, int]]] = {}
    for param, match in _repeats(grower, source, target):
        inserted.setdefault(param.template, []).append((param, int(match.block or 0)))
    return inserted


def _repeats(
    grower: Lesa, source: Architecture, target: Architecture
) -> Iterator[tuple[ParamAxes, ParamAxes]]:
    """Yield each parameter of a new block with the source's of its lower neighbour."""
    used: set[str] = set()
    for param in target.params.values():
        match = matching(param, source, target, grower.source_block_index)
        if match is None or param.tied_to or param.kind == "constant":
            continue
        if match.name in used:
            yield param, match
        used.add(match.name)
