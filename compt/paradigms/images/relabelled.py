"""Number the labels of images by the classes of other data."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from compt.data import renumber
from compt.interfaces import LeftOut, fingerprint, left_out

UNKNOWN_CLASS = "samples of a class that the training split lacks"


class Relabelled(Dataset[Any]):
    """Images of a source, with what it says of itself.

    Subclasses write ``__getitem__``.

    Args:
        source: items ``dict(image=PIL RGB, label=int)``.
        classes: names of the classes by which labels are numbered, -1 for any other; the source's
            own by default.
    """

    def __init__(self, source: Any, classes: tuple[str, ...] | None = None) -> None:
        self.source = source
        own: tuple[str, ...] = getattr(source, "classes", ())
        self.classes = own if classes is None else classes
        self._numbers = None if classes is None else renumber([*range(len(own)), -1], own, classes)

    def label_of(self, sample: Any) -> int:
        """Return the label of a sample of the source, -1 where it has none that is known."""
        label = int(sample["label"])
        return label if self._numbers is None else int(self._numbers[label])

    @property
    def broken_count(self) -> int:
        """Return how many samples of the source could not be read so far."""
        return getattr(self.source, "broken_count", 0)

    @property
    def left_out(self) -> LeftOut:
        """What of the source is left out, and how many samples have a class that is not known."""
        result = left_out(self.source).copy()
        labels = getattr(self.source, "labels", None)
        if self._numbers is not None and labels is not None:
            lost = (self._numbers[labels] < 0) & (np.asarray(labels) >= 0)
            result.part(UNKNOWN_CLASS, int(lost.sum()))
        return result

    @property
    def fingerprint(self) -> dict[str, Any]:
        """That of the source."""
        return fingerprint(self.source)

    def __len__(self) -> int:
        return len(self.source)
