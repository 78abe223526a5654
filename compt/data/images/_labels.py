"""Class names to numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def number(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted distinct names, and the index of each name among them (int64 [N], -1 where
    empty).
    """
    classes = tuple(sorted({name for name in names if name}))
    index = {name: i for i, name in enumerate(classes)}
    return classes, np.array([index.get(name, -1) for name in names], np.int64)
