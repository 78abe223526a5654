"""The contract of trackers, which passes a good one and catches broken ones."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend

from compt.interfaces import Tracker
from compt.registry import TRACKERS
from compt.testing import TrackerContract
from tests.testing.broken import Case, check, check_complete, check_good, check_others

KIND = "FileVisBackend"


class FileBackend(BaseVisBackend):
    """Writes lines of JSON."""

    def __init__(self, save_dir, project="", tags=None, group="", run_id=None):
        super().__init__(save_dir)
        self.run_id = run_id or uuid.uuid4().hex

    experiment = property(lambda self: self)

    def _init_env(self):
        pass

    def add_config(self, config, **options):
        self.write(config.to_dict())

    def add_scalars(self, scalar_dict, step=0, file_path=None, **options):
        self.write(scalar_dict)

    def write(self, content):
        folder = Path(self._save_dir)
        folder.mkdir(exist_ok=True)
        (folder / self.run_id).write_text(json.dumps(content))


class FileTracker(Tracker):
    takes_files = True

    def labelled(self, options, labels):
        return {"group": labels.chain, **options}

    def continued(self, options, run_id):
        return {"run_id": run_id, **options}

    def begin(self, backend, content, run_id):
        super().begin(backend, content, run_id)
        return backend.run_id

    def attach(self, backend, files):
        backend.write({"files": [path.name for path in files]})


class Good(TrackerContract):
    backend = dict(type=KIND, project="mine", tags=dict(owner="me"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(VISBACKENDS.module_dict, KIND, FileBackend)
    monkeypatch.setitem(TRACKERS.module_dict, KIND, FileTracker)


def test_a_good_tracker_passes(tmp_path):
    check_good(Good, tmp_path)


def test_a_back_end_without_ids_passes(tmp_path, monkeypatch):
    class Plain(Good):
        has_ids = False

    monkeypatch.setitem(TRACKERS.module_dict, KIND, Tracker)
    check_good(Plain, tmp_path)


class TakesNoMode(FileTracker):
    def labelled(self, options):
        return dict(options)


class ImportsNothing(FileTracker):
    imports = ("no_such_module_of_a_tracker",)


class KnowsBetter(FileTracker):
    def labelled(self, options, labels):
        return {**options, "project": labels.chain}


class KnowsBetterWithin(FileTracker):
    def labelled(self, options, labels):
        return {**options, "tags": {"chain": labels.chain}}


class ChangesTheConfig(FileTracker):
    def labelled(self, options, labels):
        options["group"] = labels.chain
        return options


class FillsInAPath(FileTracker):
    def labelled(self, options, labels):
        return {"group": labels.folder, **options}


class LosesScalars(FileTracker):
    def scalars(self, scalars, step):
        return {"loss": scalars["loss"]}


class HasNoId(FileTracker):
    def begin(self, backend, content, run_id):
        backend.write(content)


class BeginsAnew(FileTracker):
    def continued(self, options, run_id):
        return dict(options)


class CannotAttach(FileTracker):
    def attach(self, backend, files):
        raise OSError("no such file")


RUN, WRITTEN = "test_a_run_goes_on", "test_what_the_user_wrote_comes_first"
SIGNATURES = "test_methods_take_what_the_core_gives"
CASES: list[tuple[type, str, str, Any]] = [
    (TakesNoMode, SIGNATURES, "Define it with the arguments", None),
    (ImportsNothing, "test_its_back_end_is_registered", "Name in imports", (RUN,)),
    (KnowsBetter, WRITTEN, "put the options over it", ()),
    (KnowsBetterWithin, WRITTEN, "put the options over it", ()),
    (ChangesTheConfig, WRITTEN, "Return a new dict", None),
    (FillsInAPath, "test_options_can_be_written", "str(path) for a path", ()),
    (LosesScalars, "test_scalars_keep_what_is_recorded", "Return all scalars", ()),
    (HasNoId, RUN, "set has_ids = False", ()),
    (BeginsAnew, RUN, "Hand run_id to the back end", ()),
    (CannotAttach, RUN, "Mend what it says", ()),
]


@pytest.mark.parametrize(("tracker", "test", "advice", "also"), CASES)
def test_every_broken_tracker_is_caught(tracker, test, advice, also, tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS.module_dict, KIND, tracker)
    contract = type("Broken", (Good,), {"backend": dict(Good.backend)})
    case = Case(contract, test, advice, also)
    check(case, tmp_path / "first")
    check_others(case, tmp_path / "others")


def test_every_test_catches_something():
    check_complete(TrackerContract, [Case(Good, test, "") for _, test, _, _ in CASES])
