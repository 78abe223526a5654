"""The tutorials of docs/, followed literally: every block is a file or a command, in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from tests.environments import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.M | re.S)
FILE = re.compile(r"# ([\w/.-]+\.\w+)\n")
PAGES = [page for page in sorted(TUTORIALS.glob("*.md")) if page.stem != "plugin"]
"""tests/plugins/test_guide.py follows the other, as it installs a package."""


def follow(page: Path, folder: Path) -> str:
    """Write the page's files, run its commands, and return all that they print."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for tool, command in {"python": "", "compt": "-m compt"}.items():
        shim = bin_folder / tool
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        shim.chmod(0o755)
    variables = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    printed = ""
    for language, title, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        named = FILE.match(block)
        if name := title or (named[1] if named else ""):
            (folder / name).write_text(block)
        elif language == "bash":
            command = ["bash", "-euc", block]
            done = subprocess.run(
                command, cwd=folder, env=variables, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
        else:
            assert language in ("text", "console"), f"what is to be done with {block!r}?"
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(page, tmp_path):
    assert follow(page, tmp_path), "it shows nothing"


def test_the_notebook_runs(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")
    cells = json.loads((TUTORIALS / "toy_chain.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are not committed"
            exec("".join(cell["source"]), names)
    lines = names["axes"].get_lines()
    assert len(lines) == 6
    assert all(len(line.get_xdata()) == 6 for line in lines), "every evaluation is drawn"
    shutil.rmtree(names["runs"])


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason='pip install -e ".[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "googleapis" not in start, "no font is fetched"
    assert "compt.Grower" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
