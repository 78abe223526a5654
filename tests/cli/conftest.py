"""The command line in this process or one of its own, and a finished run."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mmengine.logging import MMLogger

import compt
from compt import cli
from compt.report.drawings import Drawings
from tests.conftest import TOY
from tests.processes import this_python


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _fresh_loggers():
    """mmengine's loggers keep the standard output of the test that made them, closed by now."""
    MMLogger._instance_dict.clear()


@pytest.fixture
def undrawn(monkeypatch):
    """Reports in this process leave out plots and page, which take longer than a toy chain."""
    monkeypatch.setattr("compt.report.build.draw", lambda report: Drawings({}, ()))


@pytest.fixture
def run(capsys):
    """Run ``compt`` in this process."""

    def call(*arguments: Any, main: Any = cli.main) -> Result:
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        return Result(code, *capsys.readouterr())

    return call


def shell(*arguments: Any, folder: Path) -> Result:
    """Run a Python of its own in a folder."""
    root = str(Path(compt.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = this_python().run(*arguments, cwd=folder, PYTHONPATH=path)
    return Result(done.returncode, done.stdout, done.stderr)


def refused(result: Result, *words: str, code: int = 2) -> None:
    """It ended with this code and one message that has these words."""
    assert result.code == code, result
    assert result.err.startswith("compt: ")
    assert result.err.count("compt: ") == 1
    assert "Traceback" not in result.err + result.out
    for word in words:
        assert word in result.err


@pytest.fixture
def short(toy) -> dict[str, Any]:
    """A chain of two members and three iterations each."""
    toy["chain"] = toy["chain"][:2]
    for stage in toy["chain"]:
        stage["iters"] = 3
    return toy


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The work folder of a finished toy chain."""
    return compt.train(copy.deepcopy(TOY), work_dir=tmp_path_factory.mktemp("finished") / "run")
