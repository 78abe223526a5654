"""Plan, train and export a chain of language models, and grow one of its members."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")
from transformers import AutoModelForCausalLM, AutoTokenizer

from compt.cli import main
from tests.paradigms.lm_models import LLAMA, corpus

LARGE = dict(
    LLAMA, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8
)
CONFIG = """
paradigm = dict(type="causal_lm", data={data!r}, context=16)
chain = [dict(name="a", model={small!r}, iters=40), dict(name="b", model={large!r}, iters=10)]
grower = dict(type="lossless")
transfer = dict(type="logit_kl")
evaluations = 2
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-2))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished chain."""
    folder = tmp_path_factory.mktemp("chain")
    config = folder / "lm.py"
    config.write_text(CONFIG.format(data=corpus(folder), small=LLAMA, large=LARGE))
    assert main(["train", str(config), "--work-dir", str(folder / "run")]) == 0
    return folder / "run"


def test_every_member_learns_and_the_larger_begins_where_the_smaller_ended(run):
    first, second = (
        json.loads((run / name / "manifest.json").read_text()) for name in ("01_a", "02_b")
    )
    assert second["main_metric"] == "val/loss"
    losses = [stage["metrics"]["val/loss"]["value"] for stage in (first, second)]
    assert (
        losses[1]
        < losses[0]
        < 3
        < first["metrics"]["val/loss"]["chance"]
        == pytest.approx(math.log(257))
    )
    assert second["growth"]["function_preserving"] and second["growth"]["error"] < 1e-5
    bits = second["metrics"]["val/bits_per_byte"]
    assert (
        bits["value"] == pytest.approx(losses[1] / math.log(2), rel=0.01)
        and not bits["higher_is_better"]
    )


def test_transformers_loads_the_members(run):
    export = run / "02_b" / "export"
    ids = AutoTokenizer.from_pretrained(export)("The quick br", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(export)(ids).logits
    assert logits.shape == (1, 12, 257)
    assert (
        bytes(logits[0, -1].topk(1).indices.tolist()) == b"o"
    )  # as in "brown": it has learned its text by heart


def test_an_exported_model_is_grown_without_a_chain(run, tmp_path):
    source, out = run / "01_a" / "export", tmp_path / "grown"
    larger = json.loads((source / "config.json").read_text()) | dict(
        hidden_size=64, num_attention_heads=8
    )
    (tmp_path / "larger.json").write_text(json.dumps(larger))
    assert (
        main(["grow", "--from", str(source), "--to", str(tmp_path / "larger.json"), "-o", str(out)])
        == 0
    )
    ids = torch.arange(32, 44)[None]
    with torch.no_grad():
        small, large = (
            AutoModelForCausalLM.from_pretrained(path)(ids).logits for path in (source, out)
        )
    assert torch.allclose(small, large, atol=1e-4)
    assert AutoTokenizer.from_pretrained(out)("é")["input_ids"] == [195, 169]
