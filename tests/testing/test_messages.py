"""Nothing in the contracts fails without saying what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import compt.testing
from compt.testing.contracts import Violation, is_finite_scalar, randomised, snapshot

FILES = sorted(Path(compt.testing.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_every_complaint_has_advice(file):
    for node in ast.walk(ast.parse(file.read_text())):
        assert not isinstance(node, ast.Assert), f"{file.name}:{node.lineno} is a bare assert"
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "require",
            "Violation",
            "must_work",
        ):
            wanted = 3 if node.func.id == "require" else 2
            assert len(node.args) == wanted, f"{file.name}:{node.lineno} has no advice"


def test_what_tests_of_plug_ins_import_is_in_one_place():
    assert set(compt.testing.__all__) == {
        "DataSourceContract",
        "GrowerContract",
        "LayoutContract",
        "ParadigmContract",
        "TransfererContract",
    }
    assert callable(randomised) and callable(snapshot) and callable(is_finite_scalar)


def test_a_violation_reads_as_an_error_of_compt():
    assert str(Violation("It is wrong.", "Mend it.")) == "It is wrong.\n  do: Mend it."
    assert isinstance(Violation("", ""), AssertionError)
