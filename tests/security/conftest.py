"""Traps that go off where a file of somebody else's is run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.hostile import Trap


@pytest.fixture
def trap(tmp_path) -> Iterator[Trap]:
    """A program that must not run, in whatever form a test hides it."""
    trap = Trap(tmp_path)
    yield trap
    assert not trap.has_run
