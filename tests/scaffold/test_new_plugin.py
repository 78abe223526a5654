"""compt new-plugin: all kinds install, pass their contract tests, are listed, and load."""

from __future__ import annotations

import json

import pytest

from compt.cli import main
from compt.errors import ConfigError, WorkDirError
from compt.scaffold import KINDS, new_plugin

QUICK = ("paradigm", "transfer")
"""Kinds whose packages are built and tested each time."""


@pytest.mark.parametrize(
    "kind",
    [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_a_new_plugin_installs_passes_its_tests_and_is_listed(kind, environment, tmp_path):
    package = f"compt-new-{kind}"
    said = environment.run(
        environment.compt, "new-plugin", package, "--kind", kind, "-o", tmp_path / "p"
    ).stdout
    assert f"cd {tmp_path / 'p'}" in said
    environment.install("--no-build-isolation", "--editable", tmp_path / "p")
    named = {"layout": "compt_new_layout.net.Net", "tracker": "NewTrackerVisBackend"}
    name = named.get(kind, f"new_{kind}")
    rows = {
        row["name"]: row
        for row in json.loads(environment.run(environment.compt, "list", "--json").stdout)
    }
    assert rows[name]["package"] == package
    checked = json.loads(environment.fork(environment.compt, "check", "--json").stdout)
    assert [row["error"] for row in checked if row["package"] == package] == [""] * (
        2 if kind == "paradigm" else 1
    )
    tested = environment.fork("-m", "pytest", "-q", cwd=tmp_path / "p").stdout
    assert " passed" in tested
    assert " skipped" not in tested


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written(tmp_path):
    folder = new_plugin("Mean.Fill", "grower", tmp_path / "a")
    assert files(folder) == {
        "pyproject.toml",
        "README.md",
        "mean_fill/__init__.py",
        "tests/test_mean_fill.py",
    }
    assert "class MeanFill(compt.AxisGrower)" in (folder / "mean_fill" / "__init__.py").read_text()
    assert 'mean_fill = "mean_fill:MeanFill"' in (folder / "pyproject.toml").read_text()
    other = new_plugin("compt-mean-fill", "layout", tmp_path / "b")
    assert files(other) == {
        "pyproject.toml", "README.md", "tests/test_mean_fill.py",
        "compt_mean_fill/__init__.py", "compt_mean_fill/net.py", "compt_mean_fill/layout.py",
    }  # fmt: skip
    assert not [path for path in folder.rglob("*") if path.is_file() and "$" in path.read_text()]


@pytest.mark.parametrize(
    "name",
    ["", "3x", "compt", "compt-", "a b", "class", "../evil", "ünicode", "compt-lambda", "-x"],
)
def test_a_name_that_no_package_can_have(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot be the name of a plug-in package"):
        new_plugin(name, "grower")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken(tmp_path):
    with pytest.raises(ConfigError, match=r"There is a grower 'lossless' already, of compt "):
        new_plugin("compt-lossless", "grower", tmp_path / "a")
    assert new_plugin("compt-lossless", "transfer", tmp_path / "a")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(WorkDirError, match="not empty"):
        new_plugin("compt-x", "grower", tmp_path)
    assert main(["new-plugin", "compt-x", "--kind", "grower", "-o", str(tmp_path)]) == 2
    assert "Choose another with -o" in capsys.readouterr().err
    assert files(tmp_path) == {"kept"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkDirError, match="could not be written"):
        new_plugin("compt-x", "grower", tmp_path / "file" / "inner")
