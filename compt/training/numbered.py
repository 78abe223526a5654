"""Let batches hold the number of each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from compt.errors import PluginError
from compt.interfaces import Batch
from compt.training.loader import Collate

INDEX = "index"
"""Under which key a batch holds them."""


class NumberedDataset(Dataset[tuple[int, Any]]):
    """A data set whose items are pairs of a sample's number and the sample."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        """Return what the data set says of itself, which samplers ask for."""
        if name == "dataset" or name.startswith("__"):  # before it is there, as in a copy
            raise AttributeError(name)
        return getattr(self.dataset, name)


class NumberedCollate:
    """Collate numbered samples into a batch with their numbers, int64 [B].

    A class, as worker processes take copies.
    """

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[tuple[int, Any]]) -> Batch:
        """Return the batch of the samples, and their numbers beside it.

        Raises:
            PluginError: the batch is no mapping, or has something else under that key.
        """
        batch = self.collate([sample for _, sample in samples])
        if not isinstance(batch, Mapping):
            raise PluginError(
                f"collate() returns a {type(batch).__name__}, which cannot hold samples' numbers.",
                do="Return a dict, or leave sample_index out.",
            )
        if INDEX in batch:
            raise PluginError(
                f"collate() returns '{INDEX}', which is where sample_index puts the samples' "
                "numbers.",
                do="Give it another name, or leave sample_index out.",
            )
        return {**batch, INDEX: torch.tensor([number for number, _ in samples])}
