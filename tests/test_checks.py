"""The tree is clean by the tools that pyproject.toml configures."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


def test_the_import_contract_covers_the_whole_core():
    """lint-imports itself runs in test_packaging."""
    contract = (ROOT / "pyproject.toml").read_text().partition("[tool.importlinter]")[2]
    core = {path.stem for path in (ROOT / "compt").glob("*.py")} - {"__init__", "__main__"} | {
        "testing"
    }
    assert not [name for name in sorted(core) if f'"compt.{name}"' not in contract]
