"""The contract of suites."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compt.evaluation.options import complete
from compt.interfaces import Metric, Suite
from compt.random_state import random_state
from compt.registry import SUITES
from compt.testing._contract import Contract, require_signatures
from compt.testing._samples import contents
from compt.testing._shared import (
    described,
    drawn_since,
    must_work,
    random_state_kept,
    require,
    seeded,
    some,
)


class SuiteContract(Contract):
    """Tests that a suite measures exports, the same at every call, and leaves them alone.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.SuiteContract):
            suite = dict(type="mine", data="tests/data")

            def export(self, folder):
                ...  # write a small model, as its paradigm exports it
    """

    suite: Mapping[str, Any]
    """The config of a suite, with data that is there; a fixture may set it."""

    def export(self, folder: Path) -> None:
        """Write an export that the suite reads into an empty folder."""
        raise NotImplementedError

    def make(self) -> Suite:
        """Build the suite."""
        suite: Suite = SUITES.build(self.suite)
        return suite

    def plugin_class(self) -> type:
        """Return the class of the suite."""
        return type(self.make())

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Require the signatures of the interface."""
        require_signatures(self.make(), Suite)

    def test_recognises_what_it_reads(self, tmp_path: Path) -> None:
        """Require that ``recognises`` tells an export from other folders and files."""
        export, empty, file = self._exported(tmp_path), tmp_path / "empty", tmp_path / "notes.txt"
        empty.mkdir()
        file.write_text("no model")
        suite, do = self.make(), "Look for the files that evaluate() reads."
        require(suite.recognises(export) is True, "recognises() refuses the export.", do)
        others = {"an empty folder": empty, "a text file": file, "nothing": tmp_path / "nowhere"}
        for name, path in others.items():
            with must_work(f"recognises() fails for {name}", "Return False for it."):
                answer = suite.recognises(path)
            require(answer is False, f"recognises() says {answer!r} of {name}.", do)

    def test_measures_metrics(self, tmp_path: Path) -> None:
        """Require metrics by ``data/name``, with finite values that chance is comparable to."""
        metrics = self._measured(self._exported(tmp_path))
        require(metrics, "evaluate() measures nothing.", "Return one metric or more.")
        nameless = [name for name in metrics if not all(name.partition("/"))]
        require(
            not nameless,
            f"evaluate() calls metrics {some(nameless)}.",
            "Call them by the data and what is measured: 'digits/accuracy'.",
        )
        faults = {name: _fault(metric) for name, metric in metrics.items()}
        wrong = [f"The metric '{name}' {fault}" for name, fault in faults.items() if fault]
        require(not wrong, "; ".join(wrong), "Return compt.Metric(value, chance, unit=...).")

    def test_measures_the_same_again(self, tmp_path: Path) -> None:
        """Require one result of one export, whatever the global random states."""
        export = self._exported(tmp_path)
        results = []
        for seed in (1, 2):
            with seeded(seed):
                results.append(self._measured(export))
        require(
            results[0] == results[1],
            "Measured twice, an export has other metrics.",
            "Draw from a generator with a fixed seed, or take the seed as an option.",
        )

    def test_leaves_all_as_it_was(self, tmp_path: Path) -> None:
        """Require the files of the export and the global random states as they were."""
        export = self._exported(tmp_path)
        before = contents([export])
        with random_state_kept():
            state = random_state()
            self._measured(export)
            drawn = drawn_since(state)
        now = contents([export])
        touched = {path for path in {*before, *now} if before.get(path) != now.get(path)}
        require(not touched, f"evaluate() changes {some(touched)}.", "Write to another folder.")
        require(
            not drawn,
            f"evaluate() leaves another global random state of {some(drawn)}.",
            "Use a generator of its own, or put the state back when it has measured.",
        )

    def test_options_are_recorded(self) -> None:
        """Require options that can be written, and from which the same suite is built again."""
        options = {name: value for name, value in self.suite.items() if name != "type"}
        do = "Take options of plain types or Path; a dataclass does: @dataclass(kw_only=True)."
        with must_work("Its options cannot be written as JSON", do):
            recorded = json.loads(json.dumps(complete(self.plugin_class(), options)))
        with must_work("It cannot be built from its options as recorded", do):
            again = SUITES.build({"type": self.suite["type"], **recorded})
        require(
            complete(type(again), recorded) == recorded,
            f"Built from its recorded options {recorded} it has others.",
            do,
        )

    # How it is done

    def _exported(self, folder: Path) -> Path:
        export = folder / "export"
        export.mkdir()
        self.export(export)
        return export

    def _measured(self, export: Path) -> Mapping[str, Metric]:
        with must_work(
            "evaluate() fails", "Mend what it says, or give the contract another export."
        ):
            return dict(self.make().evaluate(export))


def _fault(metric: Any) -> str:
    """Return what is wrong with a metric, '' where nothing is."""
    if not isinstance(metric, Metric):
        return f"is a {type(metric).__name__}"
    values = [value for value in (metric.value, metric.chance) if value is not None]
    try:
        are_finite = all(map(math.isfinite, values))
    except TypeError as error:
        return described(error)
    if not are_finite:
        return f"is {metric.value}, chance {metric.chance}"
    is_share = metric.unit == "share"
    outside = [value for value in values if is_share and not 0 <= value <= 1]
    return f"is {outside[0]}, and no share from 0 to 1" if outside else ""
