"""`compt check CONFIG` tries what a run does before it trains, and leaves nothing behind."""

from __future__ import annotations

import json

import pytest
import torch

from compt.testing.toy import Toy
from tests.cli.conftest import refused
from tests.conftest import config_file


def test_every_step_is_said(run, toy, tmp_path):
    toy["chain"][2]["grower"] = dict(type="scratch")
    file = config_file(tmp_path, toy)
    code, out, err = run("check", file)
    assert (code, err) == (0, "")
    steps = [line for line in out.splitlines() if line.startswith("ok: ")]
    assert steps[0].startswith("ok: plan: a, b, c; 13.6 MFLOP")
    assert steps[1].startswith("ok: data and parts: 256 in 'train'")
    assert steps[2].startswith("ok: one batch through 'a': loss ") and "32 samples" in steps[2]
    assert steps[3] == "ok: growth 'a' -> 'b': keeps the function"
    assert steps[4].startswith("ok: growth 'b' -> 'c': does not keep the function")
    assert "warning: 'a' -> 'b' grows 5.4x" in out
    assert sorted(tmp_path.iterdir()) == [file]


def test_steps_are_json(run, toy, tmp_path):
    content = json.loads(run("check", config_file(tmp_path, toy), "--json").out)
    assert content["ok"] is True and len(content["steps"]) == 5
    assert content["warnings"][0].startswith("'a' -> 'b'")


def test_what_a_run_would_refuse_is_refused(run, toy, tmp_path):
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lrr=1))
    refused(run("check", config_file(tmp_path, toy)), "optim_wrapper", "lrr")


@pytest.mark.parametrize("fails", [lambda *_: 1 / 0, lambda *_: {"loss": torch.tensor(torch.nan)}])
def test_a_batch_that_cannot_be_trained_on_is_refused(run, toy, tmp_path, monkeypatch, fails):
    file, loss, calls = config_file(tmp_path, toy), Toy.loss, []

    def on_meta_alone(self, outputs, batch):
        calls.append(1)
        is_real = not outputs["logits"].is_meta
        return fails() if is_real else loss(self, outputs, batch)

    monkeypatch.setattr(Toy, "loss", on_meta_alone)
    result = run("check", file)
    assert result.code == 1 and result.err.count("compt: ") == 1 and "Traceback" not in result.err
    assert "first batch" in result.err and "growth" not in result.out
    assert calls
