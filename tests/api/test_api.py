"""The public API is what is written down for its version; what an older one had is there or says
that it goes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import compt
from compt import api
from tests.api.surface import FOLDER, lines, recorded

ADVICE = (
    "The public API is not what tests/api says of version {version}. If names, arguments or "
    "methods were added, raise the minor version in compt/api.py; if one is to go, put it into "
    "DEPRECATED for one minor version first; then "
    "write it down: python -m tests.api.surface"
)


def test_the_api_is_the_one_written_down():
    file = recorded(api.API_VERSION)
    assert file.is_file(), ADVICE.format(version=api.API_VERSION)
    before, after = set(file.read_text().splitlines()), set(lines())
    assert after == before, "\n".join(
        [ADVICE.format(version=api.API_VERSION), *(f"+ {line}" for line in sorted(after - before))]
        + [f"- {line}" for line in sorted(before - after)]
    )


def said_to_go(line: str) -> bool:
    """Tell whether a line of the surface is deprecated, as a name or a method's argument.

    A method's argument stands once in DEPRECATED, and in the surface of every subclass.
    """
    name = line.partition(" = ")[0].removeprefix("compt.")
    arguments = ("." + key.partition(".")[2] for key in api.DEPRECATED if "() " in key)
    return re.split(r"[.(]", name)[0] in api.DEPRECATED or name.endswith(tuple(arguments))


def is_derived(line: str, surface: set[str]) -> bool:
    """Tell whether a class has the bases of a line still, and now others between them."""
    name, _, bases = line.rstrip(")").partition("(")
    now = [other for other in surface if other.startswith(f"{name}(") and other.endswith(")")]
    all_bases = {*bases.split(", ")} if bases else set()
    return any(
        all_bases <= {*other.rstrip(")").partition("(")[2].split(", ")}
        for other in now
        if all_bases
    )


def test_a_class_may_get_another_base_and_lose_none():
    surface = {"a.B(Between, Base)", "a.B()"}
    assert is_derived("a.B(Base)", surface)
    assert not is_derived("a.B(Base, Lost)", surface)
    assert not is_derived("a.C(Base)", surface)
    assert not is_derived("a.B.gone()", surface)


def version(file: Path) -> tuple[int, ...]:
    return tuple(map(int, file.stem.split(".")))


def test_what_the_version_before_had_is_there_or_is_said_to_go():
    here = tuple(map(int, api.API_VERSION.split(".")))
    older = sorted(
        (f for f in FOLDER.glob("*.txt") if version(f)[0] == here[0] and version(f) < here),
        key=version,
    )
    for file in older[-1:]:
        surface = set(lines())
        gone = set(file.read_text().splitlines()) - surface
        left = {line for line in gone if not (said_to_go(line) or is_derived(line, surface))}
        assert not left, f"gone since {file.stem} without a warning: {sorted(left)}"


def test_a_deprecated_name_goes_with_the_next_minor_version():
    here = int(api.API_VERSION.split(".")[1])
    overdue = [
        name for name, gone in api.DEPRECATED.items() if int(gone.since.split(".")[1]) < here
    ]
    assert not overdue, f"it warned for one minor version: take it out of compt/api.py: {overdue}"


def test_nothing_else_is_public():
    assert set(compt.__all__) == {"__version__", *api.NAMES}
    assert len(set(compt.__all__)) == len(compt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = compt.nothing


def test_a_deprecated_name_works_and_warns_where_it_is_used(monkeypatch):
    monkeypatch.setattr(
        api,
        "DEPRECATED",
        {"old_describe": api.Deprecation("compt.growth.axes:describe", since="1.0")},
    )
    for _ in range(2):  # every time, not only the first
        with pytest.warns(
            DeprecationWarning,
            match=r"compt\.old_describe is deprecated since API 1\.0: "
            r"use compt\.growth\.axes\.describe",
        ) as seen:
            assert compt.old_describe is compt.describe
        assert seen[0].filename == __file__
    assert "old_describe" not in vars(compt)


def test_a_name_that_is_not_deprecated_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [getattr(compt, name) for name in compt.__all__]


def test_importing_compt_imports_no_library():
    code = (
        "import sys; before = set(sys.modules); import compt; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout and "mmengine" not in done.stdout
