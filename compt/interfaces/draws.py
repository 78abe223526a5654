"""Draw what belongs to samples alike, however their batch is spread over processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Draws:
    """Random tensors with an entry for each sample of a batch.

    They are drawn for the batches of all processes together, and each takes its own samples': these
    are the same in a run of one process.

    Args:
        generator: the same in every process.
        rank: the process, of ``world_size``, whose samples are every ``world_size``-th of them all.
        world_size: number of processes.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, world_size: int = 1) -> None:
        self.generator, self.rank, self.world_size = generator, rank, world_size

    def rand(self, num_samples: int, *shape: int) -> Tensor:
        """Return uniform numbers from 0 to 1, [num_samples, *shape], on the generator's device."""
        return self._own(torch.rand, num_samples, shape)

    def randn(self, num_samples: int, *shape: int) -> Tensor:
        """Return standard normal numbers, [num_samples, *shape], on the generator's device."""
        return self._own(torch.randn, num_samples, shape)

    def _own(self, draw: Callable[..., Tensor], num_samples: int, shape: tuple[int, ...]) -> Tensor:
        size = (num_samples * self.world_size, *shape)
        every = draw(size, generator=self.generator, device=self.generator.device)
        return every[self.rank :: self.world_size]
