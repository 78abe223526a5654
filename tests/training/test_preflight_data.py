"""Data of which too much is left out stops a chain before it is trained, whatever its source."""

from __future__ import annotations

import json

import pytest

from compt.config import load_config
from compt.errors import ConfigError
from compt.training.preflight import check_data

pytest.importorskip("transformers")

GOOD = json.dumps({"text": "page about the tide " * 20})


def config(folder, **data):
    model = dict(
        model_type="llama",
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    data = dict(type="jsonl", cache_dir=str(folder / "cache"), **data)
    return load_config(
        dict(
            paradigm=dict(type="causal_lm", context=8, data=data),
            chain=[dict(name="a", model=model, iters=1)],
            train_dataloader=dict(batch_size=1),
        )
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.jsonl").write_text("\n".join([GOOD] * 40))
    (tmp_path / "mixed.jsonl").write_text("\n".join([GOOD] * 10 + ['{"content": "x"}'] * 30))
    return {name: str(tmp_path / f"{name}.jsonl") for name in ("good", "mixed")}


@pytest.mark.parametrize("split", ["train", "val"])
def test_too_much_left_out_of_any_split(files, tmp_path, split):
    splits = {**dict(train=files["good"], val=files["good"]), split: files["mixed"]}
    with pytest.raises(ConfigError, match=f"30 of 40 samples of '{split}'") as caught:
        check_data(config(tmp_path, **splits))
    message = str(caught.value)
    assert "30 without the key 'text'" in message
    assert "mixed.jsonl, line 11" in message
    assert caught.value.exit_code == 2


def test_what_is_allowed_is_told_with_its_fingerprint(files, tmp_path):
    splits = dict(train=files["good"], val=files["mixed"])
    checked = check_data(config(tmp_path, max_broken=0.75, **splits))
    assert checked.left_out["val"]["samples"] == {"without the key 'text'": 30}
    assert (checked.left_out["val"]["total"], checked.left_out["train"]["samples"]) == (40, {})
    assert checked.fingerprints["train"]["tokens"] > checked.fingerprints["val"]["tokens"]
    assert checked.notes == []


def test_another_size_than_the_config_declares_is_told(files, tmp_path):
    checked = check_data(config(tmp_path, train=files["good"], num_samples=77))
    (note,) = checked.notes
    assert "num_samples=77 in the config" in note
