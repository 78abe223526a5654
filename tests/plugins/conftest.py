"""A fresh environment, in which plug-in packages are installed as their users would."""

from __future__ import annotations

import pytest

from tests.environments import Environment


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory) -> Environment:
    """Install compt alone, from its wheel.

    The tests install packages of names of their own.
    """
    made = Environment(tmp_path_factory.mktemp("plugged"))
    made.install("--force-reinstall", wheel)
    return made
