"""What a record says of the code that it was made with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import compt
from compt.report.software import environment, note_revision, packages, revision


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A git repository of one commit, in which the process runs."""
    monkeypatch.chdir(tmp_path)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    (tmp_path / "model.py").write_text("width = 8\n")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(("git", *command), check=True)
    yield tmp_path
    revision.cache_clear()


def test_the_revision_is_that_of_the_start(project: Path) -> None:
    note_revision()
    head = subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True).stdout
    assert environment()["git"] == head.strip()
    (project / "model.py").write_text("width = 16\n")
    assert environment()["git"] == head.strip()
    note_revision()
    assert environment()["git"] == f"{head.strip()}-dirty"


@pytest.mark.parametrize("path", ["", None])
def test_without_git_or_a_repository_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if path is not None:
        monkeypatch.setenv("PATH", path)
    note_revision()
    assert "git" not in environment()
    revision.cache_clear()


def test_packages_are_those_that_train() -> None:
    versions = dict(text.rsplit(" ", 1) for text in packages().split(", "))
    assert versions["compt"] == compt.__version__
    assert {"torch", "numpy", "mmengine"} <= set(versions)
    assert "pytest" not in versions
