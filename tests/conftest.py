"""Shared fixtures: a toy chain that trains in a second."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import compt.testing.toy  # noqa: F401 - registers the toy paradigm

TOY: dict[str, Any] = dict(
    custom_imports=dict(imports=["compt.testing.toy"]),
    paradigm=dict(type="toy", samples=256),
    grower=dict(type="lossless"),
    train_dataloader=dict(batch_size=32),
    checkpoint=dict(interval=3, keep=2),
    evaluations=2,
    chain=[
        dict(name="a", model=dict(width=8, depth=1), iters=8),
        dict(name="b", model=dict(width=16, depth=2), iters=8),
        dict(name="c", model=dict(width=24, depth=3), iters=6),
    ],
)


@pytest.fixture
def toy() -> dict[str, Any]:
    """The config of a three-member toy chain, free to change."""
    return copy.deepcopy(TOY)
