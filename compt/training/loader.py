"""Batches that depend on the seed and the iteration alone, so that a resumed stage sees the same
ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, Sampler

from compt.errors import ConfigError
from compt.interfaces import Batch

Collate = Callable[[Sequence[Any]], Batch]
OURS = ("dataset", "sampler", "collate_fn")
"""Keys of an mmengine dataloader config that compt fills itself."""


def loader_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a dataloader config goes to torch's DataLoader."""
    return {key: value for key, value in given.items() if key not in OURS}


class EndlessBatches(Sampler[list[Any]]):
    """Index batches of iterations ``start``, ``start + 1``, ...: each epoch a new permutation, no
    short batch.

    The first entry of each batch is a seed for the samples' own randomness.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.order: DistributedSampler = DistributedSampler(
            range(length),  # type: ignore[arg-type]
            num_replicas=world_size,
            rank=rank,
            shuffle=True,
            seed=seed,
            drop_last=True,
        )
        self.batches = BatchSampler(self.order, batch_size, drop_last=True)
        self.seed, self.start, self.rank = seed, start, rank
        if len(self.batches) == 0:
            raise ConfigError(
                f"A batch of {batch_size} x {world_size} process(es) does not fit the {length} training samples.",
                where="train_dataloader.batch_size",
                do=f"Use at most {length // world_size}.",
            )

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield for ever."""
        epoch, skip = divmod(self.start, len(self.batches))
        iteration = self.start
        while True:
            self.order.set_epoch(epoch)
            for i, indices in enumerate(self.batches):
                if i >= skip:
                    yield [step_seed(self.seed, iteration, self.rank), *indices]
                    iteration += 1
            epoch, skip = epoch + 1, 0


class SeededFetch(Dataset):
    """A data set that is read a batch at a time, with the random generators seeded for that batch
    alone.

    The CPU's generators only: samples are made there, and a worker process may not touch the GPU.
    ``torch.manual_seed`` would seed every kind of device, at a tenth of a millisecond and more each
    time.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Fetch the samples of a batch; the first index is the seed."""
        seed, *rest = indices
        python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            return [self.dataset[i] for i in rest]
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(torch_state)


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """One seed per run, iteration and process, well apart from its neighbours."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(2, np.uint64)[0] >> 1)


def train_loader(
    dataset: Dataset,
    collate: Collate,
    *,
    batch_size: int,
    seed: int,
    start: int,
    rank: int,
    world_size: int,
    **options: Any,
) -> DataLoader:
    """An endless loader that begins at iteration ``start``; ``options`` go to torch's
    DataLoader.
    """
    batches = EndlessBatches(
        len(dataset),  # type: ignore[arg-type]
        batch_size,
        seed=seed,
        start=start,
        rank=rank,
        world_size=world_size,
    )
    return _loader(SeededFetch(dataset), collate, batch_sampler=batches, **options)


def eval_loader(
    dataset: Dataset, collate: Collate, *, batch_size: int, **options: Any
) -> DataLoader:
    """A loader over the whole data set, in order."""
    return _loader(dataset, collate, batch_size=batch_size, **options)


def _loader(
    dataset: Dataset, collate: Collate, *, num_workers: int = 0, **options: Any
) -> DataLoader:
    generator = torch.Generator().manual_seed(0)  # keeps the loader off the global random state
    options.setdefault("pin_memory", torch.cuda.is_available())
    return DataLoader(
        dataset, collate_fn=collate, num_workers=num_workers, generator=generator, **options
    )
