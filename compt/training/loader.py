"""Batches that depend on the seed and the iteration alone.

A resumed stage sees the batches that it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, Sampler

from compt.errors import ConfigError
from compt.interfaces import Batch, Paradigm

Collate = Callable[[Sequence[Any]], Batch]
OWN_KEYS = ("dataset", "sampler", "collate_fn")
"""Keys of an mmengine dataloader config that compt fills itself."""


def loader_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a dataloader config goes to torch's DataLoader."""
    return {key: value for key, value in config.items() if key not in OWN_KEYS}


def open_dataset(paradigm: Paradigm, config: Mapping[str, Any], split: str) -> Dataset[Any]:
    """Open the data set that a dataloader config names, else the paradigm's own."""
    dataset = config.get("dataset")
    return DATASETS.build(dataset) if dataset is not None else paradigm.build_dataset(split)


class EndlessBatches(Sampler[list[Any]]):
    """Index batches of iterations ``start``, ``start + 1``, ... for ever.

    Each epoch is a new permutation, and its last batch is dropped if it is short. The first
    entry of each batch is a seed for the samples' own randomness: it travels with the indices
    because the worker that reads the batch does not know the iteration.

    Args:
        length: samples in the data set.
        batch_size: samples a process and iteration.
        seed: of the order and the samples' randomness.
        start: the first iteration, 0-based.
        rank: the process, of ``world_size``; each gets batches of its own.
        world_size: number of processes.

    Raises:
        ConfigError: an epoch has not one batch.
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
        self.order: DistributedSampler[Any] = DistributedSampler(
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
                f"A batch of {batch_size} x {world_size} process(es) does not fit the {length} "
                "training samples.",
                where="train_dataloader.batch_size",
                do=f"Use at most {length // world_size}.",
            )

    def __len__(self) -> int:
        """Return the number of batches in one epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield batches for ever."""
        epoch, num_to_skip = divmod(self.start, len(self.batches))
        iteration = self.start
        while True:
            self.order.set_epoch(epoch)
            for index, batch in enumerate(self.batches):
                if index >= num_to_skip:
                    yield [step_seed(self.seed, iteration, self.rank), *batch]
                    iteration += 1
            epoch, num_to_skip = epoch + 1, 0


class SeededFetch(Dataset[Any]):
    """A data set that is read a batch at a time, with random generators seeded for that batch.

    The generators are put back afterwards.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Fetch the samples of a batch, whose first index is the seed."""
        seed, *sample_indices = indices
        python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # Not torch.manual_seed, which seeds every kind of device, at a tenth of a millisecond
        # and more each time. Samples are made on the CPU, and a worker process may not touch
        # the GPU.
        torch.default_generator.manual_seed(seed)
        try:
            return [self.dataset[index] for index in sample_indices]
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(torch_state)


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """Return a seed of its own for a run, iteration and process, well apart from its neighbours."""
    state = np.random.SeedSequence([seed, iteration, rank]).generate_state(2, np.uint64)
    return int(state[0] >> 1)


def train_loader(
    dataset: Dataset[Any],
    collate: Collate,
    *,
    batch_size: int,
    seed: int,
    start: int,
    rank: int,
    world_size: int,
    **options: Any,
) -> DataLoader[Any]:
    """Build an endless loader that begins at iteration ``start``.

    ``options`` go to torch's DataLoader.
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
    dataset: Dataset[Any], collate: Collate, *, batch_size: int, **options: Any
) -> DataLoader[Any]:
    """Build a loader over the whole data set, in order."""
    return _loader(dataset, collate, batch_size=batch_size, **options)


def _loader(
    dataset: Dataset[Any], collate: Collate, *, num_workers: int = 0, **options: Any
) -> DataLoader[Any]:
    # Without a generator of its own the loader would draw from the global random state
    # whenever it is iterated.
    generator = torch.Generator().manual_seed(0)
    options.setdefault("pin_memory", torch.cuda.is_available())
    return DataLoader(
        dataset, collate_fn=collate, num_workers=num_workers, generator=generator, **options
    )
