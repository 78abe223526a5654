"""Read folders of transformers without running anything of them."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from tests.paradigms.lm_models import LLAMA, made

# isort: split
from compt import ConfigError
from compt.growth.stored import StoredWeights
from compt.paradigms.causal_lm import CausalLm
from compt.paradigms.text.tokenizer import open_tokenizer


@pytest.fixture
def folder(tmp_path):
    """An exported language model with its tokenizer."""
    paradigm, model = made(dict(LLAMA, vocab_size=260))
    folder = tmp_path / "export"
    folder.mkdir()
    paradigm.export(model, folder)
    return folder


def changed(file, **options) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | options))


def index_of(folder, shard: str) -> None:
    """Turn the file of weights into one that an index names."""
    weights = folder / "model.safetensors"
    names = dict.fromkeys(StoredWeights(folder), shard)
    weights.rename(folder / "model-00001.safetensors")
    content = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["llama", "evil"])
def test_code_beside_a_model_is_not_run(folder, trap, kind):
    (folder / "evil.py").write_text(trap.code)
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    changed(folder / "config.json", auto_map=names, model_type=kind)
    paradigm = CausalLm()
    if kind == "llama":  # transformers has the model: its own code is used
        paradigm.load(folder)
        return
    assert paradigm.recognises(folder)
    with pytest.raises(ConfigError, match="needs code of its own"):
        paradigm.load(folder)


@pytest.mark.parametrize("has_own", [True, False])
def test_code_beside_a_tokenizer_is_not_run(folder, trap, monkeypatch, has_own):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "evil.py").write_text(trap.code)
    kind = {} if has_own else {"tokenizer_class": "EvilTokenizer"}
    names = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
    changed(folder / "tokenizer_config.json", auto_map=names, **kind)
    if has_own:
        open_tokenizer(folder)
        return
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_tokenizer(folder)


def test_pickled_weights_make_no_objects(folder, trap):
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": trap.object}, folder / "pytorch_model.bin")
    assert CausalLm().weight_dtype(folder) is None
    with pytest.raises(ConfigError, match="cannot be loaded"):
        CausalLm().load(folder)


def test_kernels_that_a_config_names_are_not_fetched(folder, trap, monkeypatch):
    def fetch(*arguments, **options):
        raise AssertionError(arguments)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    changed(folder / "config.json", attn_implementation="evil/kernel")
    CausalLm().load(folder)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/outside.safetensors", "C:x", ""])
def test_an_index_names_no_file_outside_of_its_folder(folder, tmp_path, shard):
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    index_of(folder, shard.replace("/outside", f"{tmp_path}/outside"))
    assert CausalLm().recognises(folder)
    for read in (CausalLm().load, StoredWeights, CausalLm().weight_dtype):
        with pytest.raises(ConfigError, match="outside of its folder") as caught:
            read(folder)
        assert str(folder) in str(caught.value)


def test_an_index_of_files_beside_it_is_read(folder):
    index_of(folder, "model-00001.safetensors")
    assert CausalLm().load(folder)
    assert len(StoredWeights(folder)) > 1


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"weight_map": 5}', "\\ud800"])
def test_an_index_that_is_none(folder, text):
    index_of(folder, "model-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    assert CausalLm().recognises(folder)
    with pytest.raises(ConfigError, match="an index that cannot be read"):
        CausalLm().load(folder)
    assert CausalLm().weight_dtype(folder) is None


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/full"])
def test_a_config_without_end_is_not_read(folder, target):
    (folder / "config.json").unlink()
    os.symlink(target, folder / "config.json")
    assert not CausalLm().recognises(folder)
