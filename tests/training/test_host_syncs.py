"""Let no iteration wait for the device, but those that log or look at the losses.

On a GPU every value that Python reads of a tensor waits until the device has come that far. Here
the reads are counted where torch makes them, on whatever device.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import compt
from compt.training.hooks import ProgressHook
from compt.training.loops import TrainLoop
from compt.training.stage import StageModel
from tests.training.conftest import optimizer

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
"""What item(), bool() and float() come to, and masks as indices, whose result's size is read."""
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 512, "width": 32, "layers": 1, "heads": 2},
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


class Reads(TorchDispatchMode):
    """Count the reads within."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in READS
        return func(*args, **(kwargs or {}))


def test_reads_are_counted():
    for read in (lambda t: t.item(), bool, float, lambda t: torch.ones(1)[t > 0]):
        with Reads() as reads:
            read(torch.ones(()))
        assert reads.count, "the count would not notice"
    with Reads() as reads:
        torch.where(torch.ones(3) > 0, 1.0, 2.0).sum()
    assert not reads.count


@pytest.fixture
def reads_by_iteration(monkeypatch):
    """How many values each iteration of the stages has read, by number from 0."""
    counts: Counter[int] = Counter()
    step = TrainLoop._step

    def counted(self, batch):
        with Reads() as reads:
            step(self, batch)
        counts[self._iter - 1] += reads.count

    monkeypatch.setattr(TrainLoop, "_step", counted)
    monkeypatch.setattr(ProgressHook, "after_train_iter", lambda *_, **__: None)  # at its interval
    return counts


def test_no_iteration_of_a_chain_reads_a_value_between_two_of_the_log(
    toy, tmp_path, reads_by_iteration
):
    """With what hooks into a step.

    An average counts its steps on the CPU, and reads it there, which no device is waited for.
    """
    del toy["chain"][2]
    toy["log_interval"] = 4
    toy["transfer"] = dict(type="feature_mse", until=0.7)
    toy["grown"] = dict(new_lr_mult=2.0, new_warmup=0.5)
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lr=1e-3), clip_grad=dict(max_norm=1.0))
    compt.train(toy, work_dir=tmp_path / "run")
    reading = {iteration for iteration, count in reads_by_iteration.items() if count}
    assert reading == {3, 7}, "the last of every four logs its losses"


@pytest.mark.parametrize(
    ("paradigm", "model", "raw", "expected"),
    [
        (
            dict(type="clip"),
            CLIP,
            dict(
                image=torch.zeros(4, 3, 32, 32, dtype=torch.uint8),
                text=torch.ones(4, 8, dtype=torch.long),
            ),
            0,
        ),
        (
            dict(type="causal_lm", context=16),
            LLAMA,
            dict(tokens=torch.ones(4, 17, dtype=torch.long)),
            1,  # transformers looks for packed sequences, unless it is compiled
        ),
    ],
)
def test_a_paradigms_step_reads_no_value_itself(paradigm, model, raw, expected):
    stage = StageModel(paradigm, dict(name="a", model=model)).train()
    wrapper = optimizer(stage)
    stage.train_step(raw, wrapper)  # what is made once
    with Reads() as reads:
        stage.train_step(raw, wrapper)
        stage.after_step()
    assert reads.count == expected
