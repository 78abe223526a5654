"""Draw the same numbers from a key on every machine and under every version of NumPy.

The generator is splitmix64 (Steele et al. 2014), which finds any number without those before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1
Bits = NDArray[np.uint64]
T = TypeVar("T")


def key_for(*names: Any) -> int:
    """Return 64 bits that names and numbers decide."""
    text = "\n".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def mixed(values: Bits) -> Bits:
    """Spread the bits of uint64 values over all their places."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    values ^= values >> np.uint64(31)
    return values


def table(key: int, rows: np.ndarray, columns: int) -> Bits:
    """Draw uint64 [len(rows), columns], where a row depends on its own number alone."""
    firsts = rows.astype(np.uint64) * np.uint64(columns)
    numbers: Bits = np.add.outer(firsts, np.arange(1, columns + 1, dtype=np.uint64))
    return mixed(numbers * np.uint64(_GAMMA) + np.uint64(key))


class Dice:
    """Numbers drawn one after the other, for one row."""

    def __init__(self, key: int, row: int) -> None:
        self._state = _mixed((key + row * _GAMMA) & _MASK)

    def below(self, bound: int) -> int:
        """Draw a whole number from 0 to below a bound."""
        self._state = (self._state + _GAMMA) & _MASK
        return _mixed(self._state) % bound

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


def _mixed(value: int) -> int:
    """Spread the bits of one number as :func:`mixed` does."""
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)
