"""Over two processes a fault of one rolls both back, and one goes on with a run of two."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import compt
from compt.files import read_json
from compt.report.record import StageRecord
from tests.conftest import TOY
from tests.training.test_distributed import two_processes

SCRIPT = """
import os
import sys

import compt
from compt.testing.toy import Toy
from compt.training import loops
from compt.training.distributed import start
from tests.training.test_guard_distributed import CONFIG

start("pytorch")
what, folder = sys.argv[1:]
step = loops.TrainLoop._step
failed = []

def failing(self, batch):
    if what == "interrupt" and self.runner.work_dir.endswith("02_b") and self._iter == 5:
        raise KeyboardInterrupt
    if what == "nan" and self._iter == 4 and not failed and os.environ["RANK"] == "1":
        failed.append(1)
        batch = {**batch, "x": batch["x"] * float("nan")}
    step(self, batch)

loops.TrainLoop._step = failing
try:
    compt.train(CONFIG, work_dir=folder, launcher="pytorch")
except KeyboardInterrupt:
    pass
"""

CONFIG = copy.deepcopy(TOY)
CONFIG |= dict(train_dataloader=dict(batch_size=16), guard=dict(retries=1))


def run(what: str, folder: Path) -> Path:
    (folder / "script.py").write_text(SCRIPT)
    processes = two_processes("script.py", what, folder / "run", cwd=folder)
    assert [process.returncode for process in processes] == [0, 0], processes
    return folder / "run"


def test_both_processes_roll_back_over_a_fault_of_one(tmp_path):
    folder = run("nan", tmp_path)
    records = [StageRecord.read(folder / s / "manifest.json") for s in ("01_a", "02_b", "03_c")]
    assert [(r["at"], r["to"]) for r in records[0].rollbacks] == [(5, 3)]
    assert all(record.main.value is not None for record in records)


@pytest.mark.slow
def test_one_process_goes_on_where_two_stopped(tmp_path):
    folder = run("interrupt", tmp_path)
    assert read_json(folder / "chain.json")["world_size"] == 2
    config = {**CONFIG, "train_dataloader": dict(batch_size=32)}
    compt.train(config, work_dir=folder, resume=True)
    record = StageRecord.read(folder / "02_b" / "manifest.json")
    assert (record.iters, record.batch_size, record.samples) == (8, 32, 8 * 32)
    state = read_json(folder / "chain.json")
    assert state["world_size"] == 1
    assert "processes: 2 -> 1" in state["history"][-1]["changes"]
