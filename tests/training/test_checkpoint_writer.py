"""Checkpoints that a thread writes are those of a run that waits for them."""

from __future__ import annotations

import copy
import signal
import threading
import time

import pytest
import torch

import compt
from compt.errors import TrainingError
from compt.training import checkpoint_writer
from compt.training.checkpoint import load_checkpoint
from compt.training.checkpoint_writer import CheckpointWriter
from compt.training.loops import TrainLoop
from compt.writing import not_written

TIMES = ("seconds", "curve", "compt_usage")
"""What differs between two runs."""
PATIENCE = 20.0


@pytest.fixture
def one_stage(toy):
    """A chain of one member that saves after every third iteration."""
    toy["chain"] = toy["chain"][:1]
    toy["checkpoint"] = dict(interval=3, keep=2, asynchronous=True)
    return toy


@pytest.fixture
def saved(monkeypatch):
    """What is written, by iteration, as it is when it is written."""
    states: dict[int, dict] = {}
    save = checkpoint_writer.save_checkpoint

    def noting(state, folder, iteration, **options):
        states[iteration] = copy.deepcopy({k: v for k, v in state.items() if k not in TIMES})
        save(state, folder, iteration, **options)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", noting)
    return states


def same(value, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        return torch.equal(value, expected)
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[k], expected[k]) for k in value)
    if isinstance(expected, (list, tuple)):
        return len(value) == len(expected) and all(map(same, value, expected))
    return value == expected


def weights(folder):
    return (folder / "01_a" / "weights.safetensors").read_bytes()


def test_what_is_written_is_the_state_at_its_iteration_while_training_goes_on(
    one_stage, saved, tmp_path, monkeypatch
):
    """Each is held back until the next step is done, which must not show in it."""
    compt.train({**one_stage, "checkpoint": dict(interval=3)}, work_dir=tmp_path / "waits")
    expected, steps = dict(saved), threading.Semaphore(0)
    saved.clear()
    step, write = TrainLoop._step, CheckpointWriter._write

    def counted(self, batch):
        step(self, batch)
        steps.release()

    def held_back(self, state, sharded, iteration):
        while steps.acquire(blocking=False):  # of the steps before
            pass
        assert iteration == 8 or steps.acquire(timeout=PATIENCE)
        write(self, state, sharded, iteration)

    monkeypatch.setattr(TrainLoop, "_step", counted)
    monkeypatch.setattr(CheckpointWriter, "_write", held_back)
    compt.train(one_stage, work_dir=tmp_path / "beside")
    assert saved.keys() == expected.keys() == {3, 6, 8}
    for iteration, state in expected.items():
        assert same(saved[iteration], state), iteration
    assert weights(tmp_path / "beside") == weights(tmp_path / "waits")


def test_a_full_disk_ends_the_run_and_the_last_good_checkpoint_is_gone_on_from(
    one_stage, tmp_path, monkeypatch
):
    compt.train(one_stage, work_dir=tmp_path / "one")
    save = checkpoint_writer.save_checkpoint

    def full(state, folder, iteration, **options):
        if iteration == 6:
            raise not_written(folder / "iter_00000006.pt", OSError(28, "No space left on device"))
        save(state, folder, iteration, **options)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_writer, "save_checkpoint", full)
        with pytest.raises(TrainingError, match=r"iter_00000006.pt.*No space left"):
            compt.train(one_stage, work_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "01_a" / "manifest.json").exists()
    checkpoints = tmp_path / "run" / "01_a" / "checkpoints"
    assert [path.name for path in sorted(checkpoints.glob("*.pt"))] == ["iter_00000003.pt"]
    compt.train(one_stage, work_dir=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "one")


def test_a_signal_a_rollback_and_an_error_of_the_run_wait_for_what_is_written(
    one_stage, tmp_path, monkeypatch
):
    save, step = checkpoint_writer.save_checkpoint, TrainLoop._step

    def slow(*args, **options):
        time.sleep(0.3)
        save(*args, **options)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", slow)

    def run(event, name):
        def interrupted(self, batch):
            if self._iter == 3 and not self.rollbacks:
                event(self, batch)
            step(self, batch)

        with monkeypatch.context() as patched:
            patched.setattr(TrainLoop, "_step", interrupted)
            compt.train({**one_stage, "guard": dict(retries=1)}, work_dir=tmp_path / name)

    def newest(name):
        state = load_checkpoint(tmp_path / name / "01_a" / "checkpoints", pytest.fail)
        return state["iter"]

    def fails(*_):
        raise RuntimeError("a broken sample")

    def spoil(loop, batch):
        next(loop.stage.student.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match="Stopped by SIGTERM after iteration 4"):
        run(lambda *_: signal.raise_signal(signal.SIGTERM), "signal")
    assert newest("signal") == 4
    with pytest.raises(RuntimeError, match="broken sample"):
        run(fails, "error")
    assert newest("error") == 3
    run(spoil, "rollback")
    assert (tmp_path / "rollback" / "01_a" / "manifest.json").exists()


def test_checkpoints_are_written_one_after_the_other(tmp_path, monkeypatch):
    """The second waits for the first, and its memory is the first one's."""
    running, log = threading.Lock(), []

    def save(state, folder, iteration, **options):
        assert running.acquire(blocking=False)
        time.sleep(0.05)
        log.append((iteration, state["tensor"].item(), state["tensor"].data_ptr()))
        running.release()

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save)
    tensor, module = torch.zeros(()), torch.nn.Linear(1, 1)
    with CheckpointWriter(tmp_path, keep=1, asynchronous=True, warn=pytest.fail) as writer:
        for iteration in range(3):
            writer.save({"tensor": tensor}, module, iteration)
            tensor += 1
    assert [entry[:2] for entry in log] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert len({address for *_, address in log} | {tensor.data_ptr()}) == 2


def test_tied_tensors_are_written_once(tmp_path):
    tied = torch.nn.Linear(64, 64, bias=False)
    state = {"a": tied.weight.detach(), "b": tied.weight.detach(), "rollbacks": []}
    sizes = []
    for asynchronous in (False, True):
        folder = tmp_path / str(asynchronous)
        with CheckpointWriter(folder, keep=1, asynchronous=asynchronous, warn=pytest.fail) as one:
            one.save(dict(state), tied, 1)
        (file,) = folder.iterdir()
        sizes.append(file.stat().st_size)
    assert sizes[0] == sizes[1] < 2 * 4 * 64 * 64
