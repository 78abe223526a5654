"""The order in which samples are drawn, as a function of the seed and the place alone.

Nothing is remembered from one draw to the next, so that a resumed stage goes on where it was
without going through what was drawn before, and so that processes and workers that each ask for
their own part of a batch leave nothing out and draw nothing twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.registry import DATA_SAMPLERS

from compt.errors import ConfigError
from compt.interfaces.mixture import Mixture, shares

ROUND = 1000
"""Draws, about, in which every part of a mixture has its share."""


class Order(ABC):
    """An endless order of samples, of which any batch can be asked for.

    Args:
        length: samples of the data set.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def num_batches(self, batch_size: int) -> int:
        """Return the batches of an epoch, which is as many draws as there are samples."""
        return self.length // batch_size

    @abstractmethod
    def batch(self, number: int, batch_size: int) -> np.ndarray:
        """Return the samples of a batch of all processes together, int64 [batch_size].

        Args:
            number: of the batch, 0-based.
            batch_size: of all processes together.
        """

    @abstractmethod
    def summary(self, num_draws: int, batch_size: int) -> str:
        """Say what so many draws take of the samples, '' where there is nothing to say."""


class Permutations(Order):
    """A permutation of the samples an epoch, as torch's DistributedSampler draws it.

    Samples that do not fill a last batch are left out, other ones in every epoch.

    Args:
        length: samples of the data set.
        seed: of the permutations.
        shuffle: whether there are any.
    """

    def __init__(self, length: int, seed: int, *, shuffle: bool = True) -> None:
        super().__init__(length)
        self.seed, self.shuffle = seed, shuffle
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def batch(self, number: int, batch_size: int) -> np.ndarray:
        """Return the samples of a batch."""
        epoch, index = divmod(number, self.num_batches(batch_size))
        return self.epoch(epoch)[index * batch_size : (index + 1) * batch_size]

    def summary(self, num_draws: int, batch_size: int) -> str:
        """Say how many samples an epoch leaves out."""
        num_left = self.length % batch_size
        if not num_left or num_draws <= self.length - num_left:
            return ""
        others = ", other ones in each" if self.shuffle else ""
        return (
            f"{num_left:,} of {self.length:,} samples fill no batch of {batch_size:,} and are left "
            f"out of every epoch{others}."
        )

    def epoch(self, number: int) -> np.ndarray:
        """Return all samples in the order of an epoch, int64 [length]."""
        if not self.shuffle:
            number = 0
        if number != self._epoch:
            self._order = np.arange(self.length)
            if self.shuffle:
                generator = torch.Generator().manual_seed(self.seed + number)
                self._order = torch.randperm(self.length, generator=generator).numpy()
            self._epoch = number
        return self._order


@DATA_SAMPLERS.register_module()
class MixtureSampler(Order):
    """Draws from the parts of a mixture by their weights, each part in permutations of its own.

    ``train_dataloader=dict(sampler=dict(type='MixtureSampler', weights=[3, 1]))`` gives a stage
    weights of its own. Every part is gone through from the first sample to the last before it
    begins anew, however often that is within an epoch, and of any number of draws each part has its
    share to within a sample at the end of every round of about 1,000.

    Args:
        dataset: with an attribute ``mixture``, see :class:`compt.interfaces.mixture.Mixture`.
        seed: of the order.
        weights: share of each part, up to a common factor; those of the data set by default.
        shuffle: whether parts are permuted.

    Raises:
        ConfigError: the data set is no mixture, or the weights are not one a part, from 0 on.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int = 0,
        *,
        weights: Sequence[float] | None = None,
        shuffle: bool = True,
    ) -> None:
        mixture: Mixture | None = getattr(dataset, "mixture", None)
        if mixture is None:
            raise ConfigError(
                "The data is no mixture.",
                where="train_dataloader.sampler",
                do="Name its sources: data=dict(type='mixture', sources=[...], weights=[...]).",
            )
        super().__init__(sum(mixture.lengths))
        self.seed = seed
        self._firsts = [sum(mixture.lengths[:i]) for i in range(len(mixture.lengths))]
        own = mixture.lengths if mixture.weights is None else mixture.weights
        self.shares = shares(own if weights is None else weights, len(self._firsts))
        self._parts = [
            Permutations(length, part_seed(seed, index), shuffle=shuffle)
            for index, length in enumerate(mixture.lengths)
        ]
        self._round: tuple[int, np.ndarray] = -1, np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Return the draws of a process in an epoch."""
        return self.length // int(get_world_size())

    def counts(self, num_draws: int) -> list[int]:
        """Return how many of the first draws come from each part."""
        number = self._round_of(num_draws)
        rest = self._round_parts(number)[: num_draws - sum(self._until(number))]
        more = np.bincount(rest, minlength=len(self.shares)).tolist()
        return [count + extra for count, extra in zip(self._until(number), more, strict=True)]

    def batch(self, number: int, batch_size: int) -> np.ndarray:
        """Return the samples of a batch."""
        start, drawn = number * batch_size, list[np.ndarray]()
        while sum(map(len, drawn)) < batch_size:
            position = start + sum(map(len, drawn))
            drawn.append(self._draw(position, start + batch_size - position))
        return np.concatenate(drawn)

    def summary(self, num_draws: int, batch_size: int) -> str:
        """Say how many draws each part has, and how often it is gone through."""
        lengths = [permutations.length for permutations in self._parts]
        each = ", ".join(
            f"{count:,} from source {number} of {length:,} ({count / length:.2f} passes)"
            for number, (count, length) in enumerate(
                zip(self.counts(num_draws), lengths, strict=True), 1
            )
        )
        return f"Of {num_draws:,} samples that are drawn come {each}."

    def _draw(self, position: int, most: int) -> np.ndarray:
        """Draw from a position on, at most to the end of its round."""
        number = self._round_of(position)
        earlier = self._until(number)
        first = position - sum(earlier)
        parts = self._round_parts(number)
        samples = np.zeros(len(parts[first : first + most]), np.int64)
        for index, permutations in enumerate(self._parts):
            is_own = parts[first : first + most] == index
            done = earlier[index] + int((parts[:first] == index).sum())
            samples[is_own] = self._firsts[index] + _drawn(permutations, done, int(is_own.sum()))
        return samples

    def _until(self, number: int) -> list[int]:
        """Return the draws from each part in all rounds before one."""
        return [math.floor(share * number * ROUND) for share in self.shares]

    def _round_of(self, position: int) -> int:
        """Return the round of a draw; some are a few draws shorter than others."""
        number = position // ROUND
        while sum(self._until(number + 1)) <= position:
            number += 1
        return number

    def _round_parts(self, number: int) -> np.ndarray:
        """Return the part that each draw of a round comes from, int64 [draws]."""
        if self._round[0] != number:
            bounds = zip(self._until(number), self._until(number + 1), strict=True)
            counts = [end - start for start, end in bounds]
            parts = np.repeat(np.arange(len(counts)), counts)
            generator = torch.Generator().manual_seed(part_seed(self.seed, -1 - number))
            self._round = number, parts[torch.randperm(len(parts), generator=generator).numpy()]
        return self._round[1]


def part_seed(seed: int, number: int) -> int:
    """Return a seed of its own for a part of a mixture, or for a round below 0."""
    state = np.random.SeedSequence([seed, abs(number), number < 0]).generate_state(2, np.uint64)
    return int(state[0] >> 2)


def _drawn(permutations: Permutations, start: int, count: int) -> np.ndarray:
    """Return draws of a part, whose epochs follow each other without a rest."""
    pieces, length = [np.zeros(0, np.int64)], permutations.length
    while count:
        epoch, first = divmod(start, length)
        piece = permutations.epoch(epoch)[first : first + count]
        pieces.append(piece)
        start, count = start + len(piece), count - len(piece)
    return np.concatenate(pieces)
