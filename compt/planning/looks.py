"""Remember on disk what outputs of torch's operators look like on the meta device.

To find it out, torch imports its compiler and a library for symbolic mathematics, which takes
longer than all else of a plan. Shapes, strides and number formats of outputs follow from those of
inputs and from nothing else but the version of torch, so that they are never out of date. How many
FLOPs an operator takes is not kept, as programs may register formulas of their own.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from compt.files import cache_folder
from compt.writing import atomic

FORMAT = 1
"""Of the file, which names it."""
MOST = 10_000
"""Operators in the file, 200 bytes each; one that is full begins anew."""
Look = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Shape, strides and number format of a tensor."""


class Outputs(NamedTuple):
    """What an operator returned."""

    tensors: tuple[Look | None, ...] = ()
    """None for a gradient that nobody asked for; empty where it returned its first argument."""
    is_tuple: bool = False

    @classmethod
    def of(cls, outputs: Any) -> Outputs | None:
        """Describe outputs, or return None for what is not made of meta tensors alone."""
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        present = [tensor for tensor in tensors if tensor is not None]
        if not present or not all(type(tensor) is Tensor and tensor.is_meta for tensor in present):
            return None
        looks = (None if t is None else (tuple(t.shape), t.stride(), t.dtype) for t in tensors)
        return cls(tuple(looks), isinstance(outputs, tuple))

    def made(self, args: Sequence[Any]) -> Any:
        """Return new tensors that look the same, or the first argument."""
        if not self.tensors:
            return args[0]
        made = tuple(None if look is None else _tensor(*look) for look in self.tensors)
        return made if self.is_tuple else made[0]


class KnownLooks:
    """The outputs of torch's own operators, kept in a file.

    Without a folder that can be written, or with a damaged file, there is nothing to remember.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._added: dict[str, Any] = {}

    def find(self, func: OpOverload, key: Hashable) -> Outputs | None:
        """Return what an operator returned for arguments of this key, None if it is not known."""
        try:
            is_tuple, tensors = self._known[_name(func, key)]
            return Outputs(tuple(t if t is None else _look(*t) for t in tensors), bool(is_tuple))
        except (KeyError, TypeError, ValueError, AttributeError):  # not there, or damaged
            return None

    def add(self, func: OpOverload, key: Hashable, outputs: Outputs) -> None:
        """Remember what an operator returned, if it is one of torch's own."""
        if func.namespace == "aten":
            looks = [
                look and (*look[:2], str(look[2]).removeprefix("torch."))
                for look in outputs.tensors
            ]
            entry = {_name(func, key): (outputs.is_tuple, looks)}
            self._added |= entry
            self._known |= entry

    def write(self) -> None:
        """Add to the file what it does not hold, which another process may have written since."""
        if not self._added:
            return
        known = _read(self._file)
        is_full = len(known) + len(self._added) > MOST
        content = self._added if is_full else known | self._added
        with contextlib.suppress(OSError), atomic(self._file) as beside:
            beside.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        self._added = {}


def known_looks() -> KnownLooks:
    """Return those of this version of torch, which are written as the program ends."""
    version = (FORMAT, torch.__version__, torch.version.git_version, torch.get_default_dtype())
    key = hashlib.sha256(repr(version).encode()).hexdigest()[:16]
    return _opened(cache_folder() / "planning" / f"operators-{key}.json")


@lru_cache(maxsize=8)
def _opened(file: Path) -> KnownLooks:
    known = KnownLooks(file)
    atexit.register(known.write)
    return known


def _tensor(shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _look(shape: Sequence[int], stride: Sequence[int], dtype: str) -> Look:
    """Read the look of a tensor from JSON types, strictly."""
    known = getattr(torch, dtype)
    if not isinstance(known, torch.dtype) or not all(type(n) is int for n in (*shape, *stride)):
        raise TypeError
    if len(shape) != len(stride):
        raise ValueError
    return tuple(shape), tuple(stride), known


def _name(func: OpOverload, key: Hashable) -> str:
    return f"{func} {key}"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
