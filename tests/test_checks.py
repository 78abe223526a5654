"""The tree is clean by the tools that pyproject.toml configures."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.environments import ROOT

COMMANDS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
}


@pytest.mark.parametrize("check", COMMANDS)
def test_a_check_is_clean(check):
    tool, *arguments = COMMANDS[check]
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} comes with the extra 'dev'")
    result = subprocess.run(
        [sys.executable, "-m", tool, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_folder_of_compt_has_a_place_in_the_picture():
    """CONTRIBUTING.md draws it; lint-imports, which test_packaging runs, holds the layers."""
    drawing = (ROOT / "CONTRIBUTING.md").read_text().partition("\ncompt/\n")[2].partition("```")[0]
    lines = [line for line in drawing.splitlines() if re.match(r"  [\w.]+/? ", line)]
    drawn = {line.split()[0].rstrip("/") for line in lines}
    folder = ROOT / "compt"
    there = {path.parent.name for path in folder.glob("*/__init__.py")}
    there |= {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert drawn == there
    assert all(len(line.split()) > 2 for line in lines), "each with a comment"
