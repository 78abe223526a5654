"""The contract of suites, which passes a good one and catches broken ones."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from compt.evaluation.options import complete
from compt.interfaces import Metric, Suite
from compt.testing import SuiteContract
from tests.testing.broken import (
    Case,
    blamed_alone,
    check,
    check_complete,
    check_good,
    check_others,
    outcome,
)


@dataclass(kw_only=True)
class Sizes(Suite):
    """Measures how long a file is."""

    most: int = 10

    @classmethod
    def recognises(cls, export):
        return (export / "model.txt").is_file()

    def evaluate(self, export):
        share = len((export / "model.txt").read_text()) / self.most
        return {"text/length": Metric(share, 0.5, unit="share")}


@dataclass(kw_only=True)
class WithParts(Sizes):
    """Has an option whose default a factory makes."""

    parts: list[str] = field(default_factory=lambda: ["all"])


def contract(suite: type[Suite], **options: Any) -> type:
    class Contract(SuiteContract):
        def export(self, folder):
            (folder / "model.txt").write_text("12345")

    Contract.__name__ = suite.__name__
    Contract.suite = dict(type=suite, **options)
    return Contract


def test_a_good_suite_passes(tmp_path):
    check_good(contract(Sizes), tmp_path)
    assert outcome(contract(WithParts), "test_options_are_recorded", tmp_path) is None
    assert complete(WithParts, {"most": 7}) == {"most": 7, "parts": ["all"]}


class TakesTwo(Sizes):
    def evaluate(self, export, device):
        return super().evaluate(export)


class RecognisesAnything(Sizes):
    @classmethod
    def recognises(cls, export):
        return True


class RecognisesNothing(Sizes):
    @classmethod
    def recognises(cls, export):
        return False


class FailsForNothing(Sizes):
    @classmethod
    def recognises(cls, export):
        return "model.txt" in [path.name for path in export.iterdir()]


class MeasuresNothing(Sizes):
    def evaluate(self, export):
        return {}


class WithoutData(Sizes):
    def evaluate(self, export):
        return {"length": Metric(0.5)}


class BareNumber(Sizes):
    def evaluate(self, export):
        return {"text/length": 0.5}


class PerCent(Sizes):
    def evaluate(self, export):
        return {"text/length": Metric(50.0, unit="share")}


class NotFinite(Sizes):
    def evaluate(self, export):
        return {"text/length": Metric(float("nan"))}


class Random(Sizes):
    def evaluate(self, export):
        return {"text/length": Metric(random.random())}


class WritesThere(Sizes):
    def evaluate(self, export):
        (export / "cache.txt").write_text("x")
        return super().evaluate(export)


@dataclass(kw_only=True)
class HoldsAnObject(Sizes):
    device: Any = field(default_factory=object)


@dataclass(kw_only=True)
class ForgetsWhatItNeeds(Sizes):
    without_effect = frozenset({"data"})
    data: str


METRICS, UNTOUCHED = "test_measures_metrics", "test_leaves_all_as_it_was"
KNOWS, OPTIONS = "test_recognises_what_it_reads", "test_options_are_recorded"
CASES = [
    Case(contract(TakesTwo), "test_methods_take_what_the_core_gives", "Define it with the", None),
    Case(contract(RecognisesAnything), KNOWS, "Look for the files"),
    Case(contract(RecognisesNothing), KNOWS, "Look for the files"),
    Case(contract(FailsForNothing), KNOWS, "Return False for it"),
    Case(contract(MeasuresNothing), METRICS, "Return one metric or more"),
    Case(contract(WithoutData), METRICS, "by the data and what is measured"),
    Case(contract(BareNumber), METRICS, "Return compt.Metric"),
    Case(contract(PerCent), METRICS, "Return compt.Metric"),
    Case(contract(NotFinite), METRICS, "Return compt.Metric", None),
    Case(contract(Random), "test_measures_the_same_again", "with a fixed seed", (UNTOUCHED,)),
    Case(contract(Random), UNTOUCHED, "put the state back", None),
    Case(contract(WritesThere), UNTOUCHED, "Write to another folder"),
    Case(contract(HoldsAnObject), OPTIONS, "plain types or Path"),
    Case(contract(ForgetsWhatItNeeds, data="x"), OPTIONS, "plain types or Path"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_broken_suite_is_caught(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", blamed_alone(CASES))
def test_no_other_test_blames_a_broken_suite(case, tmp_path):
    check_others(case, tmp_path)


def test_every_test_catches_something():
    check_complete(SuiteContract, CASES)
