"""Many strings in two arrays, so that worker processes share them instead of copying them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np


class PackedStrings:
    """A sequence of strings kept as one block of UTF-8 and the offsets of its pieces.

    A list of ten million strings costs each forked worker its own copy as soon as reference counts
    are touched, and a spawned one minutes of pickling; two arrays do not.

    Args:
        data: uint8 [bytes].
        ends: int64 [N], where each string ends.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray) -> None:
        self.data, self.ends = data, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = int(self.ends[index - 1]) if index else 0
        return self.data[start : int(self.ends[index])].tobytes().decode("utf-8", "surrogatepass")


class Packer:
    """What makes PackedStrings, string by string, lone surrogates included."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._data, self._ends = bytearray(), array("q")
        for string in strings:
            self.add(string)

    def add(self, string: str) -> None:
        """Append one string."""
        self._data += string.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._data))

    def packed(self) -> PackedStrings:
        """Return what was added, after which nothing more can be."""
        return PackedStrings(
            np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64)
        )
