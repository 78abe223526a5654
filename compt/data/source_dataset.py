"""Data sets that make something of each sample of a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from compt.interfaces import LeftOut, fingerprint, left_out
from compt.interfaces.mixture import Mixture


class SourceDataset(Dataset[Any]):
    """A base of data sets over a source of images, which say of themselves what it says.

    Subclasses write ``__getitem__``.

    Args:
        source: one split, items ``dict(image=PIL RGB, label=int, ...)``.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.classes: tuple[str, ...] = getattr(source, "classes", ())

    @property
    def broken_count(self) -> int:
        """How many samples of the source could not be read so far."""
        return getattr(self.source, "broken_count", 0)

    @property
    def left_out(self) -> LeftOut:
        """What of the source is left out, in a copy that a subclass may add to."""
        return left_out(self.source).copy()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """That of the source."""
        return fingerprint(self.source)

    @property
    def mixture(self) -> Mixture | None:
        """What the source is mixed from, None where it is no mixture."""
        return getattr(self.source, "mixture", None)

    def fetch_ahead(self, indices: Sequence[int], *, images: bool = True) -> None:
        """Read what these samples are made of at a time, where the source can."""
        fetch_ahead = getattr(self.source, "fetch_ahead", None)
        if fetch_ahead is not None:
            fetch_ahead(indices, images=images)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return a batch, as loaders ask for it."""
        self.fetch_ahead(indices)
        return [self[index] for index in indices]

    def __len__(self) -> int:
        return len(self.source)
