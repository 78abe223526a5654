"""``compt grow`` on folders of transformers: larger ones that compute the same and keep the
tokenizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
import tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.cli.conftest import refused
from tests.cli.test_grow_formats import grown, written

TEXT = ["to whom it may concern", "this is it: the whole of it", "who may this be?"]
SPECIAL = ["<s>", "</s>"]


def llama(width: int, layers: int, **more: Any) -> dict[str, Any]:
    return dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=32,
        **more,
    )


def save_model(folder: Path, config: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config)).to(dtype)
    for name, p in model.named_parameters():
        if "norm" in name or "bias" in name:
            p.data += 0.1 * torch.randn_like(p)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Llama with a tokenizer of its own, as transformers saves them, and the config of a larger
    one.
    """
    path = tmp_path_factory.mktemp("llama")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, show_progress=False
    )
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(TEXT, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(path / "source")
    save_model(path / "source", llama(32, 2, vocab_size=301))
    written(path / "small.json", llama(32, 2, vocab_size=301))
    written(path / "large.json", llama(64, 3))
    return path


def logits(path: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.randint(model.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits


def same_logits(one: Path, other: Path) -> None:
    before, after = logits(one), logits(other)
    assert before.std() > 0.05
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_a_folder_grows_into_a_larger_one_with_its_tokenizer(run, folder, tmp_path):
    source, out = folder / "source", tmp_path / "out"
    report = grown(run, "--from", source, "--to", folder / "large.json", "-o", out)
    assert (report["grower"], report["dropped"]) == ("lossless", [])
    same_logits(source, out)
    config = json.loads((out / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (
        64,
        3,
        301,
    )
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    for text in TEXT:
        assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.get_vocab() == before.get_vocab()
    assert (after.bos_token, after.eos_token, after.chat_template) == (
        "<s>",
        "</s>",
        before.chat_template,
    )


def test_a_folder_names_the_larger_model_too(run, folder, tmp_path):
    save_model(tmp_path / "to", llama(64, 3, vocab_size=301))
    grown(run, "--from", folder / "source", "--to", tmp_path / "to", "-o", tmp_path / "out")
    same_logits(folder / "source", tmp_path / "out")


def test_a_tied_head_and_half_precision_are_kept(run, folder, tmp_path):
    gpt2 = dict(
        model_type="gpt2", n_head=2, n_positions=32, vocab_size=300, bos_token_id=0, eos_token_id=0
    )
    source, out = tmp_path / "source", tmp_path / "out"
    save_model(source, dict(gpt2, n_embd=32, n_layer=2), torch.bfloat16)
    to = written(tmp_path / "to.json", dict(gpt2, n_embd=64, n_layer=3, n_head=4))
    report = grown(run, "--from", source, "--to", to, "-o", out)
    assert report["dtype"] == "bfloat16" and 0 < report["rounding_error"] < 0.05
    torch.testing.assert_close(logits(out), logits(source), atol=0.05, rtol=0.05)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.dtype is torch.bfloat16
    again = tmp_path / "again"
    report = grown(run, "--from", source, "--to", to, "-o", again, "--dtype", "float32")
    assert report["dtype"] == "float32" and "rounding_error" not in report
    same_logits(source, again)


def test_what_is_carried_and_what_is_not_is_said(run, folder, tmp_path):
    source = shutil.copytree(folder / "source", tmp_path / "source")
    generation = dict(do_sample=True, eos_token_id=[1, 5], temperature=0.6)
    written(source / "generation_config.json", generation)
    (source / "LICENSE").write_text("none")
    to = written(tmp_path / "to.json", llama(64, 3, rms_norm_eps=1e-3))
    arguments = ["grow", "--from", source, "--to", to, "--grower", "leading_block"]
    code, text, err = run(*arguments, "-o", tmp_path / "out", "--dtype", "float16")
    assert code == 0, err
    assert "written in float16, which changes outputs by" in text
    assert "note: Member 'to' has rms_norm_eps=0.001" in text and "LICENSE" in text
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == generation
    refused(run(*arguments, "-o", tmp_path / "no", "--dtype", "float61"), "float16", "--dtype")
    assert not (tmp_path / "no").exists()


def test_weights_alone_grow_where_their_model_is_named(run, folder, tmp_path):
    named = ["--paradigm", "causal_lm", "--source-model", folder / "small.json"]
    weights, to = folder / "source" / "model.safetensors", folder / "large.json"
    grown(run, "--from", weights, "--to", to, "-o", tmp_path / "out", *named)
    same_logits(folder / "source", tmp_path / "out")


def test_weights_alone_need_their_model(run, folder, tmp_path):
    to = ["--to", folder / "large.json", "-o", tmp_path / "out", "--paradigm", "causal_lm"]
    result = run("grow", "--from", folder / "source" / "model.safetensors", *to)
    refused(result, "model.safetensors", "--source-model")


@pytest.mark.parametrize("source", ["source", "source/model.safetensors"])
def test_another_source_model_is_refused_by_its_tensors(run, folder, tmp_path, source):
    named = [
        "--paradigm",
        "causal_lm",
        "--source-model",
        written(tmp_path / "o.json", llama(48, 2, vocab_size=301)),
    ]
    result = run(
        "grow",
        "--from",
        folder / source,
        "--to",
        folder / "large.json",
        "-o",
        tmp_path / "out",
        *named,
    )
    refused(
        result,
        "not of this model",
        "'model.embed_tokens.weight' is [301, 32] in it and [301, 48] in the model",
    )
    assert not (tmp_path / "out").exists()


def test_another_vocabulary_is_refused_with_how_it_grows(run, folder, tmp_path):
    to = written(tmp_path / "to.json", llama(64, 3, vocab_size=512))
    result = run("grow", "--from", folder / "source", "--to", to, "-o", tmp_path / "out")
    refused(result, "512", "301", "type='extend'")


def test_a_vocabulary_is_extended(run, folder, tmp_path):
    """By a grower with options, which are JSON."""
    source, out = folder / "source", tmp_path / "out"
    to = written(tmp_path / "to.json", llama(64, 3, vocab_size=320))
    grower = json.dumps(dict(type="extend", axes=dict(vocab="mean")))
    report = grown(run, "--from", source, "--to", to, "--grower", grower, "-o", out)
    assert report["grower"] == "extend"
    small, large = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (source, out))
    ids = torch.randint(301, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = small(ids).logits, large(ids).logits
    assert after.shape[-1] == 320
    torch.testing.assert_close(after[..., :301], before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("grower", "word"), [('{"type" "extend"}', "no JSON"), ('{"axes": {}}', "has no 'type'")]
)
def test_options_of_a_grower_that_cannot_be_read(run, folder, tmp_path, grower, word):
    arguments = ["--from", folder / "source", "--to", folder / "large.json"]
    refused(run("grow", *arguments, "--grower", grower, "-o", tmp_path / "out"), word)
