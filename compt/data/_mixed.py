"""Data sets that hold the samples of several others, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from compt.interfaces import LeftOut, fingerprint, left_out
from compt.interfaces.left_out import together
from compt.interfaces.mixture import Mixture


class Mixed(Dataset[Any]):
    """A base of data sets over several others.

    Args:
        datasets: one after the other.
        weights: share of the draws that each has in training; None draws all samples alike.
    """

    def __init__(self, datasets: Sequence[Any], weights: Sequence[float] | None) -> None:
        self.datasets = list(datasets)
        lengths = tuple(len(dataset) for dataset in self.datasets)
        self.mixture = Mixture(lengths, None if weights is None else tuple(weights))
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Return the data set that a sample is of, and its number there."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, "right"))
        return number, index - int(self._ends[number]) + self.mixture.lengths[number]

    def fetch_ahead(self, indices: Sequence[int], **wishes: bool) -> None:
        """Read what these samples are made of at a time, where their data sets can."""
        places = [self.place(index) for index in indices]
        for number, dataset in enumerate(self.datasets):
            own = [index for of, index in places if of == number]
            if own and hasattr(dataset, "fetch_ahead"):
                dataset.fetch_ahead(own, **wishes)

    @property
    def left_out(self) -> LeftOut:
        """What of all of them is left out."""
        return together([left_out(dataset) for dataset in self.datasets])

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Those of all of them."""
        parts = [fingerprint(dataset) for dataset in self.datasets]
        return {"parts": parts, "samples": len(self)}
