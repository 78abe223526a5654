"""The tutorials of docs/, followed literally: every block is a file or a command, in order."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import matplotlib
import pytest

from tests.environments import ROOT
from tests.pages import Reader, blocks

TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = [page for page in sorted(TUTORIALS.glob("*.md")) if page.stem != "plugin"]
"""tests/plugins/test_guide.py follows the other, as it installs a package."""


# On a machine that does other work, too, a chain of five minutes takes ten and more.
@pytest.mark.timeout(3600)
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(page, tmp_path):
    reader = Reader(tmp_path)
    reader.follow(page)
    assert reader.done == blocks(page)
    assert reader.printed, "it shows nothing"


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
