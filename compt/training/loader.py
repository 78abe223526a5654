"""Batches that depend on the seed and the iteration alone.

A resumed stage sees the batches that it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from compt.errors import ConfigError
from compt.interfaces import Batch, Paradigm
from compt.random_state import GAMMA, splitmix64
from compt.training.order import MixtureSampler, Order, Permutations

Collate = Callable[[Sequence[Any]], Batch]
OWN_KEYS = ("dataset", "collate_fn")
"""Keys of an mmengine dataloader config that compt fills itself."""


def loader_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a dataloader config goes to a loader, without what is left to its default."""
    return {
        key: value for key, value in config.items() if key not in OWN_KEYS and value is not None
    }


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
        shuffle: whether an epoch is permuted.
        sampler: another order, or what yields this process's samples of an epoch. That may draw
            from the global generators, and need not end.

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
        shuffle: bool = True,
        sampler: Any = None,
    ) -> None:
        self.order: Any = sampler
        if sampler is None:
            self.order = Permutations(length, seed, shuffle=shuffle)
        self.batch_size, self.world_size = batch_size, world_size
        self.seed, self.start, self.rank = seed, start, rank
        if len(self) == 0:
            raise ConfigError(
                f"A batch of {batch_size} x {world_size} process(es) does not fit the {length} "
                "training samples.",
                where="train_dataloader.batch_size",
                do=f"Use at most {length // world_size}.",
            )

    def __len__(self) -> int:
        """Return the number of batches in one epoch."""
        if isinstance(self.order, Order):
            return self.order.num_batches(self.batch_size * self.world_size)
        return len(BatchSampler(self.order, self.batch_size, drop_last=True))

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield batches for ever."""
        if isinstance(self.order, Order):
            for iteration in count(self.start):
                samples = self.order.batch(iteration, self.batch_size * self.world_size)
                own = samples[self.rank :: self.world_size].tolist()
                yield [step_seed(self.seed, iteration), *own]
        # What another sampler yields depends on all that it has yielded before: its epochs have
        # no known length, and it may draw random numbers.
        for iteration, batch in enumerate(self._sampled()):
            if iteration >= self.start:
                yield [step_seed(self.seed, iteration), *batch]

    def summary(self, iters: int) -> str:
        """Say what so many iterations take of the samples, '' where there is nothing to say."""
        if not isinstance(self.order, Order):
            return ""
        batch_size = self.batch_size * self.world_size
        return self.order.summary(iters * batch_size, batch_size)

    def _sampled(self) -> Iterator[list[int]]:
        """Yield the samples of each batch of another sampler, with random numbers of its own.

        Raises:
            ConfigError: an epoch has not one batch.
        """
        with _generators_put_back():
            _seed_generators(step_seed(self.seed, 0, self.rank))
            own_state = _generator_states()
        in_batches = BatchSampler(self.order, self.batch_size, drop_last=True)
        for epoch in count():
            if hasattr(self.order, "set_epoch"):
                self.order.set_epoch(epoch)
            batches, num_batches = iter(in_batches), 0
            while True:
                with _generators_put_back():
                    _set_generators(own_state)
                    batch = next(batches, None)
                    own_state = _generator_states()
                if batch is None:
                    break
                yield batch
                num_batches += 1
            if not num_batches:
                raise ConfigError(
                    "The sampler yields less than a batch an epoch.",
                    where="train_dataloader.sampler",
                )


class SeededFetch(Dataset[Any]):
    """A data set that is read a batch at a time, with random generators seeded for each sample.

    A sample's seed follows from its place in the batches of all processes together, which they take
    by turns. The generators are put back afterwards.

    Args:
        dataset: of the samples.
        rank: the process, of ``world_size``.
        world_size: number of processes.
    """

    def __init__(self, dataset: Dataset[Any], rank: int = 0, world_size: int = 1) -> None:
        self.dataset, self.rank, self.world_size = dataset, rank, world_size

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Fetch the samples of a batch, whose first index is the seed."""
        seed, *sample_indices = indices
        fetch_ahead = getattr(self.dataset, "fetch_ahead", None)
        if fetch_ahead is not None:
            fetch_ahead(sample_indices)
        samples = []
        with _generators_put_back():
            for number, index in enumerate(sample_indices):
                _seed_generators(sample_seed(seed, self.rank + number * self.world_size))
                samples.append(self.dataset[index])
        return samples


def _seed_generators(seed: int) -> None:
    """Seed what samples are made with, on the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed, which seeds every kind of device, at a tenth of a millisecond
    # and more each time. Samples are made on the CPU, and a worker process may not touch
    # the GPU.
    torch.default_generator.manual_seed(seed)


def _generator_states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_generators(states: tuple[Any, Any, torch.Tensor]) -> None:
    python, numpy, torch_state = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torch_state)


@contextmanager
def _generators_put_back() -> Iterator[None]:
    states = _generator_states()
    try:
        yield
    finally:
        _set_generators(states)


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """Return a seed of its own for a run, iteration and process, well apart from its neighbours."""
    state = np.random.SeedSequence([seed, iteration, rank]).generate_state(2, np.uint64)
    return int(state[0] >> 1)


def sample_seed(seed: int, position: int) -> int:
    """Return a seed of its own for the sample at a position of a batch."""
    return splitmix64(seed + (position + 1) * GAMMA) >> 1


def train_loader(
    dataset: Dataset[Any],
    collate: Collate,
    *,
    batch_size: int,
    seed: int,
    start: int,
    rank: int,
    world_size: int,
    shuffle: bool = True,
    sampler: Mapping[str, Any] | None = None,
    drop_last: bool = True,
    **options: Any,
) -> DataLoader[Any]:
    """Build an endless loader that begins at iteration ``start``.

    Args:
        dataset: of the samples.
        collate: makes a batch of them.
        batch_size: samples a process and iteration.
        seed: of the order and the samples' randomness.
        start: the first iteration.
        rank: the process, of ``world_size``.
        world_size: number of processes.
        shuffle: whether an epoch is permuted.
        sampler: config of one of mmengine's samplers, in the place of a permutation.
        drop_last: True, as every batch is full.
        options: for torch's DataLoader.
    """
    order = None
    if sampler is not None:
        order = DATA_SAMPLERS.build(dict(sampler), default_args={"dataset": dataset, "seed": seed})
    elif getattr(getattr(dataset, "mixture", None), "weights", None) is not None:
        order = MixtureSampler(dataset, seed, shuffle=shuffle)
    batches = EndlessBatches(
        len(dataset),  # type: ignore[arg-type]
        batch_size,
        seed=seed,
        start=start,
        rank=rank,
        world_size=world_size,
        shuffle=shuffle,
        sampler=order,
    )
    fetch = SeededFetch(dataset, rank, world_size)
    return _loader(fetch, collate, batch_sampler=batches, **options)


def end_workers(loader: DataLoader[Any]) -> None:
    """Let go of the processes that read samples for a loader whose batches nobody holds any more.

    A stage's last batches are part of a cycle. The garbage collector may find it in a process that
    reads samples for the next stage, where torch complains that the old ones are not its children.
    """
    loader._iterator = None  # what persistent_workers keeps


def order_summary(loader: DataLoader[Any], iters: int) -> str:
    """Say what so many iterations of a loader take of the samples, '' for nothing to say."""
    batches = getattr(loader, "batch_sampler", None)
    return batches.summary(iters) if isinstance(batches, EndlessBatches) else ""


def eval_loader(
    dataset: Dataset[Any],
    collate: Collate,
    *,
    batch_size: int,
    sampler: Mapping[str, Any] | None = None,
    **options: Any,
) -> DataLoader[Any]:
    """Build a loader over the whole data set, in order, as a config's sampler may say too."""
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
