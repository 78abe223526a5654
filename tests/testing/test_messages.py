"""Nothing in the contracts fails without saying what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import compt.testing
from compt import api
from compt.testing.contracts import Violation, is_finite_scalar, randomised, snapshot

FILES = sorted(Path(compt.testing.__file__).parent.rglob("*.py"))
IDS = ["_".join(file.parts[-2:]) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=IDS)
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


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module that are no docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def is_public(name: str) -> bool:
    """Return whether ``compt.x.y`` is what compt offers, a method of it, or a public module."""
    if name in {"compt.interfaces", *api.MODULES}:
        return True
    module, _, last = name.rpartition(".")
    if last in api.MODULES.get(module, ()):
        return True
    return name.split(".")[1] in api.NAMES


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_advice_points_to_what_is_public(file):
    names = [
        name
        for text in texts(ast.parse(file.read_text()))
        for name in re.findall(r"\bcompt(?:\.\w+)+", text)
    ]
    assert [name for name in names if not is_public(name)] == []


def test_names_that_are_not_public_are_told_apart():
    assert is_public("compt.GrowthError")
    assert is_public("compt.weights.load_state")
    assert not is_public("compt.growth.operators.status")
    assert not is_public("compt.weights.saving")


def test_what_tests_of_plug_ins_import_is_in_one_place():
    assert set(compt.testing.__all__) == {
        "DataSourceContract",
        "GrowerContract",
        "LayoutContract",
        "ParadigmContract",
        "SuiteContract",
        "TrackerContract",
        "TransfererContract",
    }
    assert callable(randomised) and callable(snapshot) and callable(is_finite_scalar)


def test_a_violation_reads_as_an_error_of_compt():
    assert str(Violation("It is wrong.", "Mend it.")) == "It is wrong.\n  do: Mend it."
    assert isinstance(Violation("", ""), AssertionError)


def test_the_authors_class_is_named(tmp_path):
    """Whichever contract complains, of whatever."""

    class Nameless(compt.testing.TransfererContract):
        transfer = dict(type="logit_kl", output="features")

    with pytest.raises(Violation, match=r"^LogitKl: bind\(\) fails") as caught:
        Nameless().test_terms_are_finite_scalars()
    assert caught.value.what.startswith("LogitKl: ")

    class NotThere(compt.testing.ParadigmContract):
        paradigm = dict(type="toy", samples=2)
        model = dict(width=8, depth=1)

    with pytest.raises(Violation, match=r"^Toy: The split 'val' has fewer than 4 samples"):
        NotThere().test_metrics_are_figures()

    class Misses(compt.testing.GrowerContract):
        grower = dict(type="scratch")

        def test_of_its_own(self):
            raise Violation("It grows nothing.", "Let it.")

    with pytest.raises(Violation, match=r"^Scratch: It grows nothing\.\n  do: Let it\."):
        Misses().test_of_its_own()
