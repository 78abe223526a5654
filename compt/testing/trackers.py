"""The contract of trackers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmengine.registry import VISBACKENDS
from mmengine.utils import import_modules_from_strings

from compt.interfaces import RunLabels, Tracker
from compt.interfaces.tracker import TFLOPS
from compt.registry import TRACKERS
from compt.testing._contract import Contract, require_signatures
from compt.testing._shared import must_work, require, some

CONTENT = {"optim_wrapper": {"keys": {"norm*": {"decay_mult": 0.0}}}}
"""A part of a stage's config."""


class TrackerContract(Contract):
    """Tests that a tracker names runs, begins them, goes on with them and ends them.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.TrackerContract):
            backend = dict(type="MineVisBackend", project="tests")

    The back end has to work without a network: set the tool's own variables of the environment.
    """

    backend: ClassVar[Mapping[str, Any]]
    """Config of the back end, with what a user may write of the run."""
    has_ids: ClassVar[bool] = True
    """Whether runs have ids, by which a resumed stage goes on with its run."""

    def make(self) -> Tracker:
        """Return the tracker of the back end."""
        tracker: Tracker = self.plugin_class()()
        return tracker

    def plugin_class(self) -> type:
        """Return the class of the tracker."""
        return TRACKERS.get(self.backend["type"])

    def labels(self, folder: Path) -> RunLabels:
        """Return what a stage in a folder is called."""
        return RunLabels("toys", "toy-s", "chain", "toy", folder / "01_toy-s")

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Require the signatures of the interface."""
        require_signatures(self.make(), Tracker)

    def test_its_back_end_is_registered(self) -> None:
        """Require that ``imports`` registers the back end in mmengine under the tracker's name."""
        kind, do = self.backend["type"], "Name in imports the modules that register the back end."
        with must_work("The modules in imports cannot be imported", do):
            import_modules_from_strings(list(self.make().imports))
        require(
            VISBACKENDS.get(kind) is not None,
            f"mmengine knows no back end '{kind}'.",
            f"{do} Register the tracker under the type of its back end.",
        )

    def test_what_the_user_wrote_comes_first(self, tmp_path: Path) -> None:
        """Require of ``labelled`` and ``continued`` to keep options, and to change no argument."""
        tracker, labels = self.make(), self.labels(tmp_path)
        options = copy.deepcopy(dict(self.backend))
        filled = tracker.labelled(options, labels)
        versions = {"labelled()": filled}
        for run_id in (None, "a1"):
            versions[f"continued(run_id={run_id!r})"] = tracker.continued(filled, run_id)
        for method, version in versions.items():
            lost = [
                name for name, value in self.backend.items() if not _holds(version, name, value)
            ]
            require(
                not lost,
                f"{method} changes {some(lost)}, which the user wrote.",
                "Begin with what is filled in, and put the options over it: {**filled, **options}.",
            )
        require(
            options == self.backend,
            "labelled() or continued() changes its argument.",
            "Return a new dict.",
        )

    def test_options_can_be_written(self, tmp_path: Path) -> None:
        """Require plain values of ``labelled``, as the stage's config is a file."""
        filled = self.make().labelled(self.backend, self.labels(tmp_path))
        do = "Fill in strings, numbers, lists and dicts alone; str(path) for a path."
        with must_work("What labelled() returns is no code", do):
            read = eval(repr(filled), {})
        require(read == filled, "What labelled() returns is read from a file as another.", do)

    def test_scalars_keep_what_is_recorded(self) -> None:
        """Require of ``scalars`` every value, under its name or more."""
        recorded = {"loss": 0.5, "val/accuracy": 0.25, TFLOPS: 2.0}
        taken = self.make().scalars(dict(recorded), 7)
        lost = [name for name, value in recorded.items() if value not in taken.values()]
        require(
            not lost and len(taken) >= len(recorded),
            f"scalars() loses {some(lost or recorded)}.",
            "Return all scalars, renamed where the tracker takes no such name.",
        )

    def test_a_run_goes_on(self, tmp_path: Path) -> None:
        """Require that a run begins, takes records and files, ends, and goes on under its id."""
        file = tmp_path / "report.json"
        file.write_text("{}")
        first = self._run(tmp_path, None, file, failed=True)
        require(
            not self.has_ids or isinstance(first, str),
            f"begin() returns {first!r}, and no id of the run.",
            "Return the run's id as a str, or set has_ids = False in the contract.",
        )
        again = self._run(tmp_path, first, file, failed=False)
        require(
            again == first,
            f"A run '{first}' that goes on has the id {again!r}.",
            "Hand run_id to the back end in continued() or begin(), and return it.",
        )

    # How it is done

    def _run(self, folder: Path, run_id: str | None, file: Path, *, failed: bool) -> str | None:
        """Begin a run or go on with one, record something, end it, and return its id."""
        tracker = self.make()
        import_modules_from_strings(list(tracker.imports))
        options = tracker.labelled(self.backend, self.labels(folder))
        config = {"save_dir": str(folder / "vis_data"), **tracker.continued(options, run_id)}
        goes_on = "" if run_id is None else " that goes on"
        with must_work(f"A run{goes_on} cannot be recorded", "Mend what it says."):
            backend = VISBACKENDS.build(config)
            content = {"work_dir": str(folder), **copy.deepcopy(CONTENT)}
            begun = tracker.begin(backend, content, run_id)
            for step in (1, 2):
                scalars = tracker.scalars({"loss": 1.0 / step, TFLOPS: float(step)}, step)
                backend.add_scalars(dict(scalars), step)
            if tracker.takes_files:
                tracker.attach(backend, [file])
            tracker.close(backend, failed=failed)
        return begun


def _holds(options: Mapping[str, Any], name: str, value: Any) -> bool:
    """Tell whether options have a value, or a mapping or list that holds it."""
    own = options.get(name)
    if isinstance(value, Mapping) and isinstance(own, Mapping):
        return all(_holds(own, key, inner) for key, inner in value.items())
    return bool(own == value)
