"""Number the labels of images by the classes of other data."""

from __future__ import annotations

from typing import Any

import numpy as np

from compt.data import renumber
from compt.data.source_dataset import SourceDataset
from compt.interfaces import LeftOut

UNKNOWN_CLASS = "samples of a class that the training split lacks"


class Relabelled(SourceDataset):
    """Images of a source, with labels of other classes.

    Subclasses write ``__getitem__``.

    Args:
        source: items ``dict(image=PIL RGB, label=int)``.
        classes: names of the classes by which labels are numbered, -1 for any other; the source's
            own by default.
    """

    def __init__(self, source: Any, classes: tuple[str, ...] | None = None) -> None:
        super().__init__(source)
        own = self.classes
        self.classes = own if classes is None else classes
        self._numbers = None if classes is None else renumber([*range(len(own)), -1], own, classes)

    def label_of(self, sample: Any) -> int:
        """Return the label of a sample of the source, -1 where it has none that is known."""
        label = int(sample["label"])
        return label if self._numbers is None else int(self._numbers[label])

    @property
    def left_out(self) -> LeftOut:
        """What of the source is left out, and how many samples have a class that is not known."""
        result = super().left_out
        labels = getattr(self.source, "labels", None)
        if self._numbers is not None and labels is not None:
            lost = (self._numbers[labels] < 0) & (np.asarray(labels) >= 0)
            result.part(UNKNOWN_CLASS, int(lost.sum()))
        return result
