"""Carry over what a folder of transformers says beside sizes and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

transformers = pytest.importorskip("transformers")
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.causal_lm.paradigm import CausalLm
from compt.paradigms.text.tokenizer import ByteTokenizer
from tests.paradigms.lm_models import GPT2, LLAMA, corpus

ROPE = {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}
SOURCE = dict(
    LLAMA,
    vocab_size=300,
    max_position_embeddings=48,
    rms_norm_eps=1e-4,
    rope_parameters=ROPE,
    tie_word_embeddings=True,
    eos_token_id=[256, 5],
    pad_token_id=256,
)
LARGE = dict(LLAMA, hidden_size=64, intermediate_size=96, num_hidden_layers=3)
GENERATION = dict(do_sample=True, eos_token_id=[2, 5], pad_token_id=5, temperature=0.6, mine="x")


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of transformers in bfloat16, with all that may stand beside weights."""
    path = tmp_path_factory.mktemp("followed") / "small"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SOURCE))
    model.to(torch.bfloat16).save_pretrained(path)
    labels = dict(id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1}, own_key=7)
    write(path / "config.json", read(path / "config.json") | labels)
    write(path / "generation_config.json", GENERATION)
    tokenizer = ByteTokenizer().inner
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(path)
    write(path / "special_tokens_map.json", {"eos_token": "<|endoftext|>"})
    write(path / "additional_chat_templates" / "tool.jinja", "{{ tools }}")
    write(path / "README.md", "a card")
    write(path / "modeling_own.py", "raise SystemExit")
    return path


def exported(paradigm: CausalLm, model: Any, out: Path) -> Path:
    out.mkdir()
    paradigm.export(paradigm.build_model(Member("large", model)), out)
    return out


def followed(path: Path, **options: Any) -> CausalLm:
    paradigm = CausalLm(**options)
    paradigm.follow(path)
    return paradigm


def test_settings_that_a_model_leaves_out_are_the_folders(folder, tmp_path):
    out = exported(followed(folder), LARGE, tmp_path / "out")
    large, small = read(out / "config.json"), read(folder / "config.json")
    assert (large["hidden_size"], large["num_hidden_layers"]) == (64, 3)
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"}
    stored = {"dtype", "transformers_version"}
    assert {k for k in small if large.get(k) != small[k]} <= sizes | stored
    assert (large["rope_parameters"]["rope_theta"], large["pad_token_id"]) == (5e5, 256)
    assert (large["id2label"], large["own_key"]) == ({"0": "no", "1": "yes"}, 7)


def test_files_beside_the_weights_are_carried_as_they_are(folder, tmp_path):
    out = exported(followed(folder), LARGE, tmp_path / "out")
    for name in (
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
    ):
        assert (out / name).read_bytes() == (folder / name).read_bytes(), name
    assert AutoTokenizer.from_pretrained(out)("é")["input_ids"] == [195, 169]
    theirs = AutoModelForCausalLM.from_pretrained(out).generation_config
    assert (theirs.eos_token_id, theirs.temperature) == ([2, 5], 0.6)


def test_files_that_are_not_carried_are_named(folder):
    (note,) = followed(folder).notes
    assert "2 files" in note and "README.md" in note and "modeling_own.py" in note


def test_what_a_model_says_otherwise_is_used_and_named(folder, tmp_path):
    paradigm = followed(folder)
    model = dict(LARGE, rms_norm_eps=1e-3, eos_token_id=9, dtype="float32")
    config = read(exported(paradigm, model, tmp_path / "out") / "config.json")
    assert (config["rms_norm_eps"], config["eos_token_id"]) == (1e-3, 9)
    notes = " ".join(paradigm.notes)
    for words in ("rms_norm_eps=0.001", "0.0001", "eos_token_id=9", "[256, 5]", "bfloat16"):
        assert words in notes, words
    assert "hidden_size" not in notes


def test_another_type_of_model_takes_the_vocabulary_alone(folder):
    model: Any = followed(folder).build_model(Member("gpt2", GPT2))
    assert (model.config.vocab_size, model.config.eos_token_id) == (300, [256, 5])
    assert not hasattr(model.config, "rope_parameters")


def test_members_of_a_chain_read_with_the_folders_tokenizer(folder, tmp_path):
    """Read bytes where they are what the folder's tokenizer makes, and write its files."""
    paradigm = followed(folder, data=corpus(tmp_path), context=8)
    assert isinstance(paradigm.tokenizer, ByteTokenizer)
    out = exported(paradigm, LARGE, tmp_path / "out")
    template = "chat_template.jinja"
    assert (out / template).read_bytes() == (folder / template).read_bytes()
    inner = ByteTokenizer().inner
    inner.add_tokens(["<|more|>"])
    other = tmp_path / "other"
    inner.save_pretrained(other)
    assert followed(other, data=corpus(tmp_path)).tokenizer.size == 258
    assert followed(other, data=corpus(tmp_path), tokenizer=str(folder)).tokenizer.size == 257


def test_a_tokenizer_without_an_end_is_carried_where_nothing_is_read(folder, tmp_path):
    source = tmp_path / "source"
    ByteTokenizer().inner.save_pretrained(source)
    config = read(source / "tokenizer_config.json")
    del config["eos_token"]
    write(source / "tokenizer_config.json", config)
    write(source / "config.json", read(folder / "config.json"))
    paradigm = followed(source)
    out = exported(paradigm, LARGE, tmp_path / "out")
    assert read(out / "tokenizer_config.json") == config
    assert "no end-of-text token" in paradigm.notes[0]
    with pytest.raises(ConfigError, match="no end-of-text token"):
        followed(source, data=corpus(tmp_path))


def test_settings_of_generation_in_an_old_config_are_carried(tmp_path):
    source = tmp_path / "source"
    config = AutoConfig.for_model(**SOURCE).to_dict()
    write(source / "config.json", config | dict(temperature=0.7, do_sample=True, top_k=10))
    out = exported(followed(source), LARGE, tmp_path / "out")
    generation = read(out / "generation_config.json")
    assert (generation["temperature"], generation["top_k"]) == (0.7, 10)


REFUSED = {
    "adapter": ("adapter_config.json", {"peft_type": "LORA"}, "adapter of PEFT(.|\n)*Merge it"),
    "quantized": (
        "config.json",
        {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}},
        r"quantized \(gptq\)",
    ),
    "own code": (
        "config.json",
        {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "m.Mine"}},
        r"code of its own \(m\.Mine\)",
    ),
    "flax": ("config.json", {"model_type": "llama"}, r"another library alone \(flax_model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folders_that_cannot_be_loaded_are_recognised_and_refused_with_the_reason(case, tmp_path):
    file, content, message = REFUSED[case]
    write(tmp_path / file, content)
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    assert CausalLm().recognises(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        CausalLm().load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_constants_that_old_folders_hold_among_the_weights_are_passed_over(kind, tmp_path):
    config = dict(GPT2, vocab_size=257, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    constants = {f"transformer.h.0.attn.{name}": torch.ones(1) for name in ("bias", "masked_bias")}
    path = tmp_path / "pytorch_model.bin"
    torch.save(state | constants, path)
    paradigm = CausalLm()
    loaded = paradigm.load(tmp_path)
    if kind == "file":
        loaded = CausalLm().build_model(Member("a", config))
        CausalLm().load_weights(loaded, path)
    assert torch.equal(loaded.transformer.wte.weight, model.transformer.wte.weight)
    torch.save(state | {"transformer.h.0.attn.other": torch.ones(1)}, path)
    with pytest.raises(ConfigError, match=r"attn\.other' is unknown"):
        paradigm.load_weights(loaded, tmp_path if kind == "folder" else path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin", "shards"])
def test_the_number_format_of_weights_is_read(dtype, form, tmp_path):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SOURCE)).to(dtype)
    if form == "pytorch_model.bin":
        torch.save(model.state_dict(), tmp_path / form)
    else:
        model.save_pretrained(tmp_path, max_shard_size="30KB" if form == "shards" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (form == "shards")
    assert CausalLm().weight_dtype(tmp_path) is dtype
    for file in tmp_path.glob("*.safetensors"):
        assert CausalLm().weight_dtype(file) is dtype
    assert CausalLm().weight_dtype(tmp_path / "nowhere") is None
