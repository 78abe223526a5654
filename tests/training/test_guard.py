"""Losses that leap or are not finite: reported, rolled back over, or the end of a stage."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compt
from compt.errors import DivergedError
from compt.report.build import report
from compt.report.record import StageRecord
from compt.testing.toy import Toy
from compt.training.guard import LEAST_SEEN, LossMonitor, unfit_weights
from compt.training.loops import TrainLoop

FACTOR = {"nan": float("nan"), "inf": float("inf"), "spike": 1e4}


def monitor(losses: list[float], threshold: float = 10.0, window: int = 50) -> LossMonitor:
    watch = LossMonitor(threshold, window)
    for index, loss in enumerate(losses):
        watch.add(torch.tensor(loss))
        watch.look(index + 1)
    return watch


def noisy(count: int, level: float = 2.0, noise: float = 0.1, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return (level + noise * torch.randn(count, generator=generator)).tolist()


def test_noise_is_no_spike_and_a_leap_is():
    watch = monitor([*noisy(500), 8.0, *noisy(20, seed=1)])
    assert [(s.first, s.last, s.loss) for s in watch.spikes] == [(501, 501, 8.0)]
    assert watch.spikes[0].median == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    "losses",
    [
        [10 * math.exp(-i / 50) for i in range(400)],  # falling
        [2.0] * 100 + [2.1] * 5,  # hardly any spread
        [*noisy(LEAST_SEEN - 1), 50.0],  # too few to tell
        [*noisy(50), -50.0],  # better, not worse
    ],
    ids=["falling", "flat", "few", "below"],
)
def test_what_is_no_spike(losses):
    assert not monitor(losses).spikes


def test_neighbours_are_one_spike_and_a_new_level_is_not_for_ever():
    watch = monitor([*noisy(100), *noisy(100, level=9.0)])
    assert watch.num_spikes == 1
    assert watch.spikes[0].first == 101 and watch.spikes[0].last < 101 + 30


def test_a_look_at_many_losses_finds_the_first_that_is_not_finite():
    watch = monitor(noisy(30))
    for loss in (2.0, float("inf"), float("nan")):
        watch.add(torch.tensor(loss))
    fault = watch.look(33)
    assert not fault.is_spike and "iteration 32" in fault.text


def test_a_monitor_goes_on_from_its_state():
    losses = [*noisy(90), 7.0, *noisy(30, seed=2), 6.5]
    whole, half = monitor(losses), monitor(losses[:60])
    resumed = LossMonitor(10.0, 50)
    resumed.load_state_dict(half.state_dict())
    for index, loss in enumerate(losses[60:]):
        resumed.add(torch.tensor(loss))
        resumed.look(61 + index)
    assert resumed.state_dict() == whole.state_dict() and len(whole.spikes) == 2


def test_weights_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert unfit_weights(model) is None
    with torch.no_grad():
        model[0].weight.fill_(1e38)  # finite, though their sum is not
    assert unfit_weights(model) is None
    with torch.no_grad():
        model[1].bias[0] = float("nan")
    assert "1.bias" in unfit_weights(model).text


@pytest.fixture
def one_member(toy) -> dict[str, Any]:
    toy["chain"] = [dict(toy["chain"][0], iters=60)]
    toy["checkpoint"] = dict(interval=25, keep=2)
    toy["evaluations"] = 2
    toy["paradigm"]["samples"] = 32 * 100  # no batch comes twice
    return toy


@pytest.fixture
def bad_batch(monkeypatch, one_member):
    """Makes the loss of one batch, whichever iteration it comes in, what is asked for."""

    def arm(kind: str, iteration: int = 40) -> None:
        loss, seen = Toy.loss, []

        def remembering(self, outputs, batch):
            seen.append(batch["label"])
            return loss(self, outputs, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Toy, "loss", remembering)
            interrupted(iteration, one_member, Path("seen"))
        labels = seen[-1]  # of the iteration it was stopped after

        def failing(self, outputs, batch):
            terms = loss(self, outputs, batch)
            is_meta = batch["label"].is_meta
            if not is_meta and torch.is_grad_enabled() and torch.equal(batch["label"], labels):
                return {name: term * FACTOR[kind] for name, term in terms.items()}
            return terms

        monkeypatch.setattr(Toy, "loss", failing)

    return arm


def interrupted(iteration: int, config: dict[str, Any], folder: Path) -> None:
    """Train until the loss of an iteration is there, but neither judged nor saved."""
    after_step = TrainLoop._after_step

    def stopping(self, signals):
        if self._iter == iteration:
            raise KeyboardInterrupt
        after_step(self, signals)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLoop, "_after_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            compt.train(copy.deepcopy(config), work_dir=folder)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def record(folder: Path) -> StageRecord:
    return StageRecord.read(folder / "01_a" / "manifest.json")


def weights(folder: Path) -> bytes:
    return (folder / "01_a" / "weights.safetensors").read_bytes()


def test_a_spike_is_reported_and_trains_on(one_member, bad_batch, tmp_path):
    bad_batch("spike")
    folder = compt.train(one_member, work_dir=tmp_path / "run")
    (spike,) = record(folder).spikes
    assert spike["first"] == 40 and spike["loss"] > 100 * spike["median"]
    assert any("a spike of the loss" in note for note in report([folder]).notes)


@pytest.mark.parametrize("kind", FACTOR)
def test_a_guard_rolls_back_and_leaves_the_batches_out(kind, one_member, bad_batch, tmp_path):
    bad_batch(kind)
    one_member["guard"] = dict(retries=2)
    done = record(compt.train(one_member, work_dir=tmp_path / "run"))
    (rollback,) = done.rollbacks
    assert (rollback["at"], rollback["to"]) == (40, 25)
    assert (done.iters, done.repeated, done.samples) == (60, 15, 60 * 32)
    assert done.flops.total == pytest.approx(75 * 32 * done.flops.student_per_sample)
    assert done.curve[-1].flops == done.flops.total > 0
    assert done.main.value is not None
    notes = report([tmp_path / "run"]).notes
    assert any("went back from iteration 40 to 25 and left out 15 batches" in n for n in notes)


def test_a_guard_has_something_to_return_to_before_the_first_checkpoint(
    one_member, bad_batch, tmp_path
):
    bad_batch("nan", iteration=10)
    one_member["guard"] = dict(retries=1)
    (rollback,) = record(compt.train(one_member, work_dir=tmp_path / "run")).rollbacks
    assert (rollback["at"], rollback["to"]) == (10, 0)


@pytest.mark.parametrize("iteration", [42, 55])
def test_interrupted_after_a_rollback_it_ends_the_same(iteration, one_member, bad_batch, tmp_path):
    bad_batch("nan")
    one_member["guard"] = dict(retries=2)
    compt.train(copy.deepcopy(one_member), work_dir=tmp_path / "whole")
    interrupted(iteration, one_member, tmp_path / "run")
    compt.train(one_member, work_dir=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    whole, resumed = (record(tmp_path / name) for name in ("whole", "run"))
    assert (resumed.rollbacks, resumed.repeated) == (whole.rollbacks, whole.repeated)


def test_a_diverged_stage_goes_on_once_a_guard_is_given(one_member, bad_batch, tmp_path):
    """The advice of the message, followed to the letter."""
    bad_batch("nan")
    with pytest.raises(DivergedError, match=r"(?s)iteration 40.*guard=dict\(retries=3\)"):
        compt.train(copy.deepcopy(one_member), work_dir=tmp_path / "run")
    one_member["guard"] = dict(retries=3)
    folder = compt.train(one_member, work_dir=tmp_path / "run", resume=True)
    assert len(record(folder).rollbacks) == 1


def test_what_fails_again_and_again_ends_the_stage(one_member, tmp_path):
    one_member["paradigm"]["fail_at"] = 30
    one_member["guard"] = dict(retries=2)
    with pytest.raises(DivergedError, match="after 2 retries"):
        compt.train(one_member, work_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "01_a" / "manifest.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_last_step_may_not_leave_weights_that_are_not_finite(value, toy, tmp_path, monkeypatch):
    """The loss of an iteration is of the weights before its step."""
    toy["chain"] = toy["chain"][:1]
    step = TrainLoop._step

    def poisoning(self, batch):
        step(self, batch)
        if self._iter == 8:
            with torch.no_grad():
                next(self.stage.student.parameters()).view(-1)[0] = value

    with monkeypatch.context() as patch:
        patch.setattr(TrainLoop, "_step", poisoning)
        with pytest.raises(DivergedError, match="Weights are not"):
            compt.train(copy.deepcopy(toy), work_dir=tmp_path / "run")
    saved = sorted(p.name for p in (tmp_path / "run/01_a/checkpoints").iterdir())
    assert saved == ["iter_00000003.pt", "iter_00000006.pt"]
    compt.train(toy, work_dir=tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_passed_over(toy, tmp_path):
    """Torch reads a file with a changed byte without a word."""
    toy["chain"] = toy["chain"][:1]
    compt.train(copy.deepcopy(toy), work_dir=tmp_path / "whole")
    interrupted(7, toy, tmp_path / "run")
    newest = tmp_path / "run/01_a/checkpoints/iter_00000006.pt"
    state = torch.load(newest, weights_only=True)
    name = next(iter(state["state_dict"]))
    state["state_dict"][name].view(-1)[0] += 1
    torch.save(state, newest)
    compt.train(toy, work_dir=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    logs = "".join(p.read_text() for p in (tmp_path / "run").rglob("*.log"))
    assert "iter_00000006.pt' cannot be read (its content is not what was written)" in logs


def test_growing_may_not_give_weights_that_are_not_finite(toy, tmp_path, monkeypatch):
    """As a grower that learns may."""
    grow = compt.training.initial_weights.growing.grow

    def poisoning(source, target, *arguments, **options):
        growth = grow(source, target, *arguments, **options)
        with torch.no_grad():
            next(target.parameters()).fill_(float("nan"))
        return growth

    monkeypatch.setattr("compt.training.initial_weights.growing.grow", poisoning)
    with pytest.raises(DivergedError, match="once 'b' is grown"):
        compt.train(toy, work_dir=tmp_path / "run")
    assert not (tmp_path / "run/02_b/grown.safetensors").exists()
