"""The key ``log_interval``: how often a stage writes a line of its log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compt


def logged_iterations(folder: Path) -> list[int]:
    """The iterations of the first stage that its JSON log has a loss for."""
    (file,) = folder.glob("01_a/*/vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


@pytest.mark.parametrize(("interval", "expected"), [(None, [*range(1, 9)]), (4, [4, 8])])
def test_lines_are_as_far_apart_as_the_key_says(toy, tmp_path, interval, expected):
    toy["chain"] = toy["chain"][:1]
    folder = compt.train({**toy, "log_interval": interval}, work_dir=tmp_path / "work")
    assert logged_iterations(folder) == expected


def test_it_may_change_on_resume(toy, tmp_path):
    folder = compt.train({**toy, "log_interval": 4}, work_dir=tmp_path / "work")
    compt.train({**toy, "log_interval": 2}, work_dir=folder, resume=True)
