"""Comparison of what a paradigm returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compt.testing._shared import changed


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of loss terms, [], of which there is at least one."""
    first, *others = terms.values()
    return sum(others, start=first)


def is_finite_number(value: Any) -> bool:
    """Return whether a value is a finite number of Python's."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def close(first: Tensor, second: Tensor) -> bool:
    """Return whether two outputs are equal but for rounding, which a cheaper path may change."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-5)


def differences(first: Any, second: Any, name: str = "batch") -> list[str]:
    """Return the names of the tensors that differ in two batches, whatever they are nested in."""
    if isinstance(first, Tensor):
        equal = isinstance(second, Tensor) and not changed({"": first}, {"": second})
        return [] if equal else [name]
    if isinstance(first, Mapping):
        keys = {*first, *second}
        nested = [differences(first.get(key), second.get(key), str(key)) for key in keys]
        return [different for names in nested for different in names]
    if isinstance(first, (list, tuple)):
        nested = [differences(*items, name) for items in zip(first, second, strict=True)]
        return [different for names in nested for different in names]
    return []
