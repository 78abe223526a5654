"""What is known of a data set's samples, over several processes and after resuming.

A data set, or one that it reads from, keeps that in a tensor ``known``, uint8 [N] in shared memory,
larger where more is known: not read, read, broken and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from compt.interfaces.fingerprint import beneath


def known_samples(dataset: Any) -> list[Tensor]:
    """Return the tensors of a data set and of those that it reads from."""
    own = getattr(dataset, "known", None)
    listed = [own] if isinstance(own, Tensor) else []
    for source in beneath(dataset):
        listed += [known for known in known_samples(source) if all(known is not k for k in listed)]
    return listed


def remember_samples(dataset: Any, known_before: Iterable[Tensor]) -> None:
    """Add what an interrupted run knew, where the data set still has as many samples."""
    for known, earlier in zip(known_samples(dataset), known_before, strict=False):
        if known.shape == earlier.shape:
            torch.maximum(known, earlier, out=known)


def bring_together(dataset: Any) -> None:
    """Give every process what any of them knows, which every one of them has to call."""
    for known in known_samples(dataset):
        all_reduce(known, op="max")
