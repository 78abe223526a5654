"""Exchange exports of causal_lm with transformers, and refuse others by name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.causal_lm.paradigm import CausalLm
from compt.weights import save_weights
from tests.paradigms.lm_models import (
    CONTEXT,
    FAMILIES,
    GPT2,
    LLAMA,
    made,
    prepared,
    silence,
    tokens,
)

TIED = FAMILIES["llama_tied"]


def logits(paradigm, model) -> torch.Tensor:
    with torch.no_grad():
        return paradigm.forward(model.eval(), prepared(paradigm, tokens()))["logits"]


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_what_is_exported(family, tmp_path, capfd):
    with silence(capfd):
        paradigm, model = made(FAMILIES[family])
        paradigm.export(model, tmp_path)
        again = CausalLm(context=CONTEXT).load(tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is type(model) and not any(info.values())
    with torch.no_grad():
        assert torch.equal(
            theirs(prepared(paradigm, tokens())["input_ids"]).logits, logits(paradigm, model)
        )
    assert torch.equal(logits(paradigm, again), logits(paradigm, model))
    assert {p.dtype for p in again.parameters()} == {
        torch.float32
    } and again.config.use_cache is False
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("héé")["input_ids"] == list("héé".encode()) and tokenizer.eos_token_id == 256


def test_the_exported_folder_is_complete_and_the_model_as_before(tmp_path):
    paradigm, model = made()
    initial = model.config.to_dict(), model.generation_config.to_dict()
    paradigm.export(model, tmp_path)
    assert (model.config.to_dict(), model.generation_config.to_dict()) == initial
    names = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in tmp_path.iterdir()} == names
    config = json.loads((tmp_path / "config.json").read_text())
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert config["use_cache"] is generation["use_cache"] is True
    for written in (config, generation):
        assert (written["bos_token_id"], written["eos_token_id"]) == (256, 256)
    assert config["max_position_embeddings"] == CONTEXT and config["dtype"] == "float32"


def test_an_exported_model_generates(tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    tokenizer, theirs = (
        AutoTokenizer.from_pretrained(tmp_path),
        AutoModelForCausalLM.from_pretrained(tmp_path),
    )
    prompt = tokenizer("abc", return_tensors="pt")
    (made_up,) = theirs.generate(**prompt, max_new_tokens=4, do_sample=False).tolist()
    assert made_up[:3] == [97, 98, 99] and 4 <= len(made_up) <= 7
    with torch.no_grad():
        expected = paradigm._hidden(model, {"input_ids": torch.tensor([[97, 98, 99]])})
        assert model.lm_head(expected)[0, -1].argmax().item() == made_up[3]


def test_exports_are_the_same_bytes(tmp_path):
    paradigm, model = made()
    for name in "ab":
        (tmp_path / name).mkdir()
        paradigm.export(model, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_only_folders_of_decoders_with_weights_are_recognised(tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    assert paradigm.recognises(tmp_path)
    assert not any(
        paradigm.recognises(tmp_path / name)
        for name in ("nowhere", "config.json", "model.safetensors")
    )
    weights = (tmp_path / "model.safetensors").rename(tmp_path / "away")
    assert not paradigm.recognises(tmp_path)
    for name in ("pytorch_model.bin", "model.safetensors.index.json"):
        weights = weights.rename(tmp_path / name)
        assert paradigm.recognises(tmp_path)
    for config in (
        '{"model_type": "bert"}',
        '{"model_type": "clip"}',
        "{}",
        "[]",
        "{",
        '{"model_type": ["llama"]}',
    ):
        (tmp_path / "config.json").write_text(config)
        assert not paradigm.recognises(tmp_path), config


def test_shards_and_half_precision_are_loaded_in_float32(tmp_path):
    paradigm, model = made()
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").is_file() and paradigm.recognises(tmp_path)
    loaded = paradigm.load(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())


def test_weights_of_the_base_model_alone_are_loaded_where_the_output_layer_is_tied(tmp_path):
    """Load names without 'transformer.' and no output layer, as GPT-2 is published."""
    paradigm, model = made(GPT2)
    paradigm.export(model, tmp_path)
    state = {
        name.removeprefix("transformer."): value
        for name, value in model.transformer.state_dict().items()
    }
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits(paradigm, paradigm.load(tmp_path)), logits(paradigm, model))


def damaged(folder, damage: str) -> None:
    """An exported folder, made unusable."""
    file = folder / "model.safetensors"
    state = load_file(file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "lacks":
        state.pop("model.norm.weight")
    elif damage == "unknown":
        state["model.extra"] = torch.zeros(3)
    elif damage == "shape":
        state["model.norm.weight"] = torch.zeros(5)
    elif damage == "config":
        (folder / "config.json").write_text("{")
    if damage in ("lacks", "unknown", "shape"):
        save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "cannot be loaded"),
        ("lacks", "it lacks 'model.norm.weight'"),
        ("unknown", "'model.extra' is unknown to the model"),
        ("shape", r"'model.norm.weight' is \[5\] in it and \[32\] in the model"),
        ("config", "Cannot read the model"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(damage, message, tmp_path, capfd):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    damaged(tmp_path, damage)
    with silence(capfd), pytest.raises(ConfigError, match=message) as caught:
        paradigm.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_of_another_vocabulary_is_refused(tmp_path):
    made(dict(LLAMA, vocab_size=300))[0].export(made(dict(LLAMA, vocab_size=300))[1], tmp_path)
    with pytest.raises(ConfigError, match="vocab_size 300, the members before it 257"):
        made()[0].load(tmp_path)


def test_a_paradigm_without_a_tokenizer_takes_the_folders(tmp_path):
    """Export the tokenizer that a checkpoint came with, though nobody names it."""
    inner = CausalLm().tokenizer.inner
    inner.add_tokens(["<|more|>"])
    inner.save_pretrained(tmp_path / "tokenizer")
    paradigm, model = made(tokenizer=str(tmp_path / "tokenizer"))
    (tmp_path / "small").mkdir()
    paradigm.export(model, tmp_path / "small")
    reader = CausalLm()
    reader.load(tmp_path / "small")
    large = reader.build_model(Member("large", dict(LLAMA, hidden_size=64)))
    assert large.config.vocab_size == 258
    (tmp_path / "large").mkdir()
    reader.export(large, tmp_path / "large")
    assert "<|more|>" in AutoTokenizer.from_pretrained(tmp_path / "large").get_vocab()


@pytest.mark.parametrize("model", [LLAMA, TIED, GPT2], ids=["llama", "tied", "gpt2"])
@pytest.mark.parametrize("kind", ["folder", "safetensors", "compt", "pt", "bin"])
def test_weights_are_filled_in_from_every_kind_of_checkpoint(model, kind, tmp_path):
    paradigm, source = made(model, seed=1)
    state = source.state_dict()
    if source.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    path = tmp_path / {"folder": "", "compt": "weights.safetensors"}.get(kind, f"weights.{kind}")
    if kind == "folder":
        paradigm.export(source, path)
    elif kind == "safetensors":
        save_file(state, path)
    elif kind == "compt":
        save_weights(source, path)
    elif kind == "pt":
        torch.save(
            {"model": {f"module.{name}": value for name, value in state.items()}, "step": 3}, path
        )
    else:
        torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, path)
    paradigm, target = made(model, seed=2)
    assert not torch.equal(logits(paradigm, target), logits(paradigm, source))
    paradigm.load_weights(target, path)
    assert torch.equal(logits(paradigm, target), logits(paradigm, source))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_weights_of_another_model_are_refused_by_name(kind, tmp_path):
    paradigm, source = made(dict(LLAMA, intermediate_size=40, num_hidden_layers=3))
    path = tmp_path if kind == "folder" else tmp_path / "weights.safetensors"
    paradigm.export(source, path) if kind == "folder" else save_weights(source, path)
    target = paradigm.build_model(Member("b", LLAMA))
    initial = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        paradigm.load_weights(target, path)
    message = str(caught.value)
    assert str(path) in message and "model.layers.2." in message and "more" in message
    assert all(torch.equal(value, initial[name]) for name, value in target.state_dict().items())


def test_a_folder_without_tokenizer_is_grown_to_one_without(tmp_path):
    config = AutoConfig.for_model(
        "llama",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=99,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "small")
    paradigm = CausalLm()
    paradigm.load(tmp_path / "small")
    larger = dict(
        model_type="llama",
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
    )
    model = paradigm.build_model(Member("large", larger))
    assert model.config.vocab_size == 99
    (tmp_path / "large").mkdir()
    paradigm.export(model, tmp_path / "large")
    assert not list((tmp_path / "large").glob("tokenizer*"))
