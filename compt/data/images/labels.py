"""Class names to numbers, and one split's numbers to another's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def number(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted distinct names, and the index of each name among them.

    Returns:
        The classes, and int64 [N], -1 where a name is empty.
    """
    classes = tuple(sorted({name for name in names if name}))
    index = {name: i for i, name in enumerate(classes)}
    return classes, np.array([index.get(name, -1) for name in names], np.int64)


def renumber(
    labels: Sequence[int] | np.ndarray, names: Sequence[str], classes: Sequence[str]
) -> np.ndarray:
    """Turn a split's labels into those of another split, by the names of the classes.

    Args:
        labels: [N] indices into ``names``, -1 for none.
        names: the ``classes`` of the labels' own split.
        classes: those of the other one.

    Returns:
        int64 [N], -1 where ``classes`` has no such name.
    """
    index = {name: i for i, name in enumerate(classes)}
    numbers = [index.get(name, -1) for name in names]
    return np.array([*numbers, -1], np.int64)[np.asarray(labels, np.int64)]  # label -1: the last
