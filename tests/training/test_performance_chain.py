"""Train chains end to end with performance options, and with accumulated gradients."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

import compt
from compt.files import read_json
from compt.testing.toy import Toy, ToyNet
from compt.training.loops import TrainLoop
from tests.kill_at import OPTIMISED
from tests.test_chain import python, same_weights


@pytest.fixture
def runs(monkeypatch) -> set[tuple[int, bool, torch.dtype]]:
    """The width, the mode and the number format of every model that is run on data."""
    seen = set()
    forward = Toy.forward

    def spy(self, model, batch):
        outputs = forward(self, model, batch)
        if batch["x"].device.type != "meta" and batch["x"].any():  # no example
            seen.add((model.embed.out_features, model.training, outputs["logits"].dtype))
        return outputs

    monkeypatch.setattr(Toy, "forward", spy)
    return seen


def test_a_chain_in_bfloat16_is_trained_and_measured_in_it_and_keeps_float32(toy, tmp_path, runs):
    folder = compt.train({**toy, "precision": "bf16"}, work_dir=tmp_path / "run")
    assert runs == {
        (width, training, torch.bfloat16) for width in (8, 16, 24) for training in (True, False)
    }
    saved = [t for file in folder.rglob("*.safetensors") for t in load_file(file).values()]
    assert {tensor.dtype for tensor in saved} == {torch.float32}


def test_a_stages_options_take_the_place_of_the_chains(toy, tmp_path, runs):
    """The teacher is run as its student's stage says."""
    toy |= dict(precision="bf16", grad_checkpointing=True)
    toy["chain"][1] |= dict(precision="fp32", grad_checkpointing=False, attention="math")
    del toy["chain"][2]
    folder = compt.train(toy, work_dir=tmp_path / "run")
    half, full = torch.bfloat16, torch.float32
    assert runs == {
        (8, True, half),
        (8, False, half),
        (8, False, full),
        (16, True, full),
        (16, False, full),
    }
    chain_options, stage_options = (
        Config.fromfile(folder / name / "config.py").model.performance for name in ("01_a", "02_b")
    )
    assert chain_options == dict(precision="bf16", grad_checkpointing=True)
    assert stage_options == dict(attention="math")


def test_a_recomputed_and_compiled_chain_ends_with_the_same_weights(toy, tmp_path):
    """Dropout included: the toy drops a tenth of its units."""
    toy |= dict(chain=toy["chain"][:2], evaluations=1)
    performance = dict(grad_checkpointing=True, compile=dict(backend="aot_eager"))
    runs = [
        compt.train({**toy, **options}, work_dir=tmp_path / name)
        for name, options in (("plain", {}), ("optimised", performance))
    ]
    for stage in ("01_a", "02_b"):
        plain, optimised = (load_file(run / stage / "export" / "toy.safetensors") for run in runs)
        assert plain.keys() == optimised.keys()
        assert all(torch.equal(plain[name], optimised[name]) for name in plain)


@pytest.fixture(scope="module")
def optimised(tmp_path_factory) -> Path:
    """A chain with all performance options on, trained without a break."""
    return compt.train(OPTIMISED, work_dir=tmp_path_factory.mktemp("optimised") / "run")


def test_all_options_together_train_and_export(optimised):
    for name, width, depth in (("01_a", 8, 1), ("02_b", 16, 2), ("03_c", 24, 3)):
        model = ToyNet(width, depth)
        model.load_state_dict(
            load_file(optimised / name / "export" / "toy.safetensors"), strict=True
        )
        manifest = read_json(optimised / name / "manifest.json")
        assert manifest["metrics"]["val/loss"]["value"] > 0
    assert manifest["transfer"] == "feature_mse"


def same_runs(run: Path, other: Path) -> None:
    same_weights(run, other)
    metrics, other_metrics = (
        read_json(folder / "03_c" / "manifest.json")["metrics"] for folder in (run, other)
    )
    assert metrics == other_metrics


def test_broken_off_and_resumed_with_all_options_it_gives_the_same_bytes(
    optimised, tmp_path, monkeypatch
):
    step = TrainLoop._step

    def dying(self, batch):
        if self.runner.work_dir.endswith("02_b") and self.iter == 5:
            raise RuntimeError("the power is off")
        step(self, batch)

    monkeypatch.setattr(TrainLoop, "_step", dying)
    with pytest.raises(RuntimeError, match="power"):
        compt.train(OPTIMISED, work_dir=tmp_path / "run")
    monkeypatch.setattr(TrainLoop, "_step", step)
    assert [p.name for p in (tmp_path / "run" / "02_b" / "checkpoints").iterdir()] == [
        "iter_00000004.pt"
    ]
    compt.train(OPTIMISED, work_dir=tmp_path / "run", resume=True)
    same_runs(optimised, tmp_path / "run")


@pytest.mark.slow
def test_killed_and_resumed_with_all_options_it_gives_the_same_bytes(tmp_path):
    """Against a run of the same kind of process: with other threads the last bits differ."""
    folder = str(tmp_path / "run")
    whole = python("-m", "tests.kill_at", "never", str(tmp_path / "whole"), "switched")
    assert whole.returncode == 0, whole.stderr
    killed = python("-m", "tests.kill_at", "in the middle of a stage", folder, "switched")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = python("-m", "tests.kill_at", "never", folder, "resume", "switched")
    assert resumed.returncode == 0, resumed.stderr
    same_runs(tmp_path / "whole", tmp_path / "run")


def test_two_accumulated_batches_are_one_of_twice_the_size(toy, tmp_path, monkeypatch):
    """The same samples in the same order: only how many go through the model at once differs."""
    # The toy's own noise depends on the iteration, and there are twice as many.
    monkeypatch.setattr(Toy, "prepare", lambda self, batch, *, generator: batch)
    toy |= dict(param_scheduler=[], evaluations=1)
    toy["chain"] = [dict(name="a", model=dict(width=8, depth=1, dropout=0.0), iters=3)]
    optim = dict(optimizer=dict(type="SGD", lr=0.5, momentum=0.9))
    whole = {**toy, "optim_wrapper": optim}
    halves = {
        **toy,
        "optim_wrapper": dict(optim, accumulative_counts=2),
        "train_dataloader": dict(batch_size=16),
        "chain": [{**toy["chain"][0], "iters": 6}],
    }
    trained, accumulated = (
        load_file(compt.train(config, work_dir=tmp_path / name) / "01_a" / "weights.safetensors")
        for name, config in (("whole", whole), ("halves", halves))
    )
    torch.manual_seed(0)
    fresh = ToyNet(8, 1, dropout=0.0).state_dict()
    for name in trained:
        assert torch.allclose(trained[name], accumulated[name], atol=1e-6), name
        assert not torch.allclose(trained[name], fresh[name], atol=1e-3), "nothing was trained"
