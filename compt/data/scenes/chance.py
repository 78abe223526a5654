"""Draw the same numbers from a key on every machine and under every version of NumPy.

The generator is splitmix64 (Steele et al. 2014), which finds any number without those before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from compt.random_state import FIRST, GAMMA, SECOND, splitmix64

Bits = NDArray[np.uint64]
T = TypeVar("T")


def key_for(*names: Any) -> int:
    """Return 64 bits that names and numbers decide."""
    text = "\n".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def mixed(values: Bits) -> Bits:
    """Return :func:`compt.random_state.splitmix64` of uint64 values."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(SECOND)
    values ^= values >> np.uint64(31)
    return values


def table(key: int, rows: np.ndarray, columns: int) -> Bits:
    """Draw uint64 [len(rows), columns], where a row depends on its own number alone."""
    firsts = rows.astype(np.uint64) * np.uint64(columns)
    numbers: Bits = np.add.outer(firsts, np.arange(1, columns + 1, dtype=np.uint64))
    return mixed(numbers * np.uint64(GAMMA) + np.uint64(key))


class Dice:
    """Numbers drawn one after the other, for one row."""

    def __init__(self, key: int, row: int) -> None:
        self._state = splitmix64(key + row * GAMMA)

    def below(self, bound: int) -> int:
        """Draw a whole number from 0 to below a bound."""
        self._state = (self._state + GAMMA) % 2**64
        return splitmix64(self._state) % bound

    def one_in(self, bound: int) -> bool:
        """Return True once in so many draws."""
        return self.below(bound) == 0

    def pick(self, values: Sequence[T]) -> T:
        """Draw one of several values."""
        return values[self.below(len(values))]

    def sample(self, values: Sequence[T], count: int) -> list[T]:
        """Draw some of several values, in a random order."""
        left = list(values)
        return [left.pop(self.below(len(left))) for _ in range(count)]
