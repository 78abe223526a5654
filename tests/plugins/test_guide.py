"""The guide for authors, followed literally in a new environment.

Every block of its tutorial and of docs/plugins.md is run, in order.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.environments import ROOT

GUIDE = [ROOT / "docs" / name for name in ("tutorials/plugin.md", "plugins.md")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
FILE = re.compile(r"# ([\w/.-]+\.(?:py|toml))\n")
pytestmark = pytest.mark.slow


class Reader:
    """A reader who does what the guide says.

    It writes the guide's files, runs its commands, and keeps its loose Python for one notebook.
    """

    def __init__(self, environment, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self.cells: list[str] = []
        self.said = ""
        shims = folder / "bin"
        shims.mkdir()
        # the names that the guide uses, for the new environment's tools
        for tool, command in {"pip": "-m pip", "python": "", "compt": "-m compt"}.items():
            (shims / tool).write_text(f'#!/bin/sh\nexec "{environment.python}" {command} "$@"\n')
            (shims / tool).chmod(0o755)
        self.variables = {
            "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it so: no isolation
        }

    def bash(self, block: str) -> None:
        (self.folder / "block.sh").write_text(f"set -eu\n{block}pwd > {self.folder / 'cwd'}\n")
        cwd = self.here if (self.folder / "cwd").exists() else self.folder
        self.said += self.environment.run(
            "bash", self.folder / "block.sh", cwd=cwd, **self.variables
        ).stdout

    def toml(self, block: str) -> None:
        """Require that what the guide shows of a generated file is in it."""
        name, content = FILE.match(block)[1], block.partition("\n")[2]
        assert content.strip() in (self.here / name).read_text()

    def python(self, block: str) -> None:
        if named := FILE.match(block):
            (self.here / named[1]).write_text(block)
        else:
            self.cells.append(block)

    @property
    def here(self) -> Path:
        """Return the folder that the commands are in."""
        return Path((self.folder / "cwd").read_text().strip())


@pytest.fixture(scope="module")
def reader(environment, tmp_path_factory) -> Reader:
    """Return one who has read to the end."""
    follower = Reader(environment, tmp_path_factory.mktemp("guide"))
    for page in GUIDE:
        for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            getattr(follower, language)(block)
    return follower


def test_every_command_of_the_guide_works(reader):
    assert " passed" in reader.said
    assert re.search(r"growers +mean_fill +compt-mean-fill +0\.1\.0", reader.said)
    assert "grower=mean_fill" in reader.said
    assert "stage=b event=done" in reader.said
    assert [path.name for path in (reader.here / "dist").iterdir()] == [
        "compt_mean_fill-0.1.0-py3-none-any.whl"
    ]


def test_the_rest_of_the_guide_works_in_a_notebook(reader, environment):
    """Its loose blocks are the cells of one notebook.

    No package is installed there, so that the name is still free.
    """
    (reader.folder / "notebook.py").write_text("\n".join(reader.cells))
    environment.uninstall("compt-mean-fill")
    said = environment.run(environment.python, reader.folder / "notebook.py").stdout
    assert "expanded" in said
