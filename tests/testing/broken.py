"""Contracts run on plug-ins that are broken on purpose."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHAINS = ("test_trains_a_chain", "test_trains_and_resumes", "test_grows_a_chain")
"""Contract tests that take more than a moment: run only where they are meant to fail."""


@dataclass(frozen=True)
class Case:
    """A contract around a broken plug-in, and how it must fail."""

    contract: type
    test: str
    advice: str
    also: tuple[str, ...] | None = ()
    """Further tests that fail; None: all may, as nothing works without this."""

    @property
    def id(self) -> str:
        return f"{self.contract.__name__}-{self.test.removeprefix('test_')}"


def tests_of(contract: type) -> list[str]:
    return [name for name in dir(contract) if name.startswith("test_")]


def outcome(contract: type, test: str, folder: Path) -> Exception | None:
    """Return what one contract test raises, run on a fresh object and in a fresh folder."""
    method = getattr(contract(), test)
    arguments: dict[str, Any] = {}
    if "tmp_path" in inspect.signature(method).parameters:
        arguments["tmp_path"] = folder / test
        arguments["tmp_path"].mkdir(parents=True)
    try:
        method(**arguments)
    except pytest.skip.Exception:
        return None
    except Exception as error:
        return error
    return None


def check(case: Case, folder: Path) -> None:
    """Require that the test fails with the advice."""
    error = outcome(case.contract, case.test, folder)
    assert error is not None, f"{case.test} passes"
    assert isinstance(error, AssertionError), f"{case.test} raises {type(error).__name__}: {error}"
    message, _, do = str(error).partition("\n  do: ")
    assert len(message) > 10 and len(do) > 10, error
    assert case.advice in str(error), error


def blamed_alone(cases: Sequence[Case]) -> list[Any]:
    """Return those cases of which it is known which further tests fail, as parameters.

    For each test of a contract one is quick enough for every day; the others are slow.
    """
    known = [case for case in cases if case.also is not None]
    first = {case.test: case for case in reversed(known)}
    return [
        pytest.param(case, id=case.id, marks=[] if first[case.test] is case else [pytest.mark.slow])
        for case in known
    ]


def check_others(case: Case, folder: Path) -> None:
    """Require that no other test fails but those that may."""
    others = [name for name in tests_of(case.contract) if name not in (case.test, *CHAINS)]
    failing = {
        name: failure
        for name in others
        if (failure := outcome(case.contract, name, folder)) is not None
    }
    assert case.also is None or set(failing) == set(case.also), failing


def check_good(contract: type, folder: Path) -> None:
    """Require that every test of the contract passes."""
    for name in tests_of(contract):
        error = outcome(contract, name, folder)
        assert error is None, f"{name}: {error}"


def check_complete(base: type, cases: list[Case]) -> None:
    """Require that every test of a contract has a plug-in that it catches."""
    assert {case.test for case in cases} == set(tests_of(base))
