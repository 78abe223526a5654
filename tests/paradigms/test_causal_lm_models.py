"""Fill in configs of members of causal_lm, and refuse what cannot be a member."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers")

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.causal_lm.paradigm import CausalLm
from tests.paradigms.lm_models import (
    CONTEXT,
    GPT2,
    LLAMA,
    SIZES,
    corpus,
    made,
    prepared,
    silence,
    tokens,
)


def build(model, *, name: str = "a", **options):
    return CausalLm(**{"context": CONTEXT, **options}).build_model(Member(name, model))


def refused(model, **options) -> str:
    """The message with which a model is refused."""
    with pytest.raises(ConfigError) as caught:
        build(model, **options)
    return str(caught.value)


def test_vocabulary_special_tokens_and_positions_are_filled_in():
    llama, gpt2 = build(LLAMA), build(GPT2)
    for model in (llama, gpt2):
        config = model.config
        assert (
            config.vocab_size,
            config.bos_token_id,
            config.eos_token_id,
            config.pad_token_id,
        ) == (
            257,
            256,
            256,
            None,
        )
        assert config.max_position_embeddings == CONTEXT
        assert config.use_cache is False and config._attn_implementation == "sdpa"
    assert gpt2.transformer.wpe.weight.shape == (CONTEXT, 32)
    assert (
        build(LLAMA, context=None).config.max_position_embeddings == 2048
    )  # the family's own default


def test_what_the_dict_says_stays():
    options = dict(
        vocab_size=300,
        eos_token_id=7,
        bos_token_id=None,
        pad_token_id=3,
        max_position_embeddings=50,
    )
    config = build(dict(LLAMA, **options)).config
    assert {key: getattr(config, key) for key in options} == options
    assert build(dict(GPT2, n_positions=20)).config.max_position_embeddings == 20
    assert build(dict(GPT2, max_position_embeddings=21)).config.n_positions == 21
    assert build(dict(LLAMA, rope_theta=5e5)).config.rope_parameters["rope_theta"] == 5e5
    assert build(LLAMA, attention="eager").config._attn_implementation == "eager"


def test_models_are_float32_whatever_the_config_says():
    config = dict(
        LLAMA,
        torch_dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
        transformers_version="4.0.0",
    )
    assert {p.dtype for p in build(config).parameters()} == {torch.float32}


@pytest.mark.parametrize("pad", [256, None])
def test_the_end_of_a_text_is_trained_where_it_is_also_the_padding(pad, tmp_path):
    """Train the embedding of the end token, with which tokenizers often pad.

    transformers would give it no gradient.
    """
    model = build(dict(LLAMA, pad_token_id=pad))
    assert (model.config.pad_token_id, model.model.embed_tokens.padding_idx) == (None, None)
    inner = CausalLm().tokenizer.inner
    inner.pad_token = inner.eos_token
    inner.save_pretrained(tmp_path)
    assert build(LLAMA, tokenizer=str(tmp_path)).model.embed_tokens.padding_idx is None


def test_a_folder_is_read_without_its_weights(tmp_path):
    paradigm, model = made(dict(LLAMA, vocab_size=260))
    paradigm.export(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for options in (str(tmp_path), tmp_path, config):
        again = build(options)
        assert again.config.to_diff_dict().items() >= model.config.to_diff_dict().items()
        assert not torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_unknown_keys_are_all_reported_with_the_nearest_ones():
    message = refused(dict(LLAMA, hiden_size=64, num_layers=3, xyzzy=1), name="large")
    assert "'large'" in message and "'llama'" in message
    assert "model.hiden_size is unknown. Did you mean 'hidden_size'" in message
    assert "model.num_layers is unknown" in message and "model.xyzzy is unknown" in message
    assert "model.rope_theta is unknown" in refused(
        dict(GPT2, rope_theta=1e4)
    )  # it has learned positions


def test_a_model_of_several_parts_is_refused():
    """AutoModelForCausalLM would build it, image tower and all."""
    assert "'a' is of several parts" in refused(dict(model_type="gemma3"))


def test_a_model_without_a_type_or_with_a_wrong_one_is_refused():
    assert "'a' has no model_type" in refused({})
    assert "'lama', which is no decoder-only language model. Did you mean 'llama'" in refused(
        dict(model_type="lama")
    )
    assert "'xyzzy', which is no decoder-only" in refused(dict(model_type="xyzzy"))


@pytest.mark.parametrize("kind", ["t5", "bart", "plbart", "bert", "clip"])
def test_what_is_no_decoder_is_refused(kind, tmp_path):
    """Refuse encoders, which see the next token.

    Of others AutoModelForCausalLM would take a part, or nothing.
    """
    model = dict(model_type=kind)
    (tmp_path / "config.json").write_text(json.dumps(model))
    for options in (model, str(tmp_path)):
        message = refused(options)
        assert f"'a' has model_type '{kind}', which is no decoder-only" in message
        assert "Did you mean" not in message


@pytest.mark.parametrize(
    "model",
    [
        dict(LLAMA, num_attention_heads=5),
        dict(LLAMA, hidden_size="wide"),
        dict(LLAMA, hidden_act="nosuch"),
        dict(GPT2, n_head=5),
    ],
)
def test_sizes_that_cannot_be_are_config_errors(model):
    assert "member 'a'" in refused(model)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused():
    message = refused(dict(LLAMA, vocab_size=256, eos_token_id=0, bos_token_id=0))
    assert "'a' has 256 tokens, the tokenizer 257" in message


@pytest.mark.parametrize(
    ("key", "value"), [("pad_token_id", -1), ("eos_token_id", [256, 900]), ("bos_token_id", 257)]
)
def test_special_tokens_outside_the_vocabulary_are_refused(key, value, capfd):
    with silence(capfd):  # transformers would only warn
        message = refused(dict(LLAMA, **{key: value}))
    assert (
        f"'a' has {key}={value if isinstance(value, list) else [value]}; its tokens are 0 to 256"
        in message
    )


def test_a_context_beyond_the_positions_is_refused():
    message = refused(dict(GPT2, n_positions=8))
    assert (
        "'a' takes 8 tokens, the context has 12" in message and "max_position_embeddings" in message
    )
    assert "takes 8 tokens" in refused(dict(LLAMA, max_position_embeddings=8))


def test_members_of_different_vocabularies_are_refused():
    paradigm, _ = made(dict(LLAMA, vocab_size=300))
    with pytest.raises(ConfigError, match="'b' has vocab_size 320, the members before it 300"):
        paradigm.build_model(Member("b", dict(LLAMA, vocab_size=320)))
    assert paradigm.build_model(Member("c", dict(LLAMA, hidden_size=64))).config.vocab_size == 300


def test_members_may_read_more_than_the_context():
    """A teacher of more positions gets the same tokens; without a context they must agree."""
    longer = dict(GPT2, n_positions=2 * CONTEXT)
    paradigm, student = made(GPT2)
    teacher = paradigm.build_model(Member("b", longer)).eval()
    assert len(teacher.transformer.wpe.weight) == 2 * len(student.transformer.wpe.weight)
    batch = prepared(paradigm, tokens())
    with torch.no_grad():
        taught = paradigm.teacher_forward(teacher, batch, paradigm.outputs)
        expected = teacher(batch["input_ids"]).logits
    assert taught["logits"].shape == paradigm.forward(student, batch)["logits"].shape
    torch.testing.assert_close(taught["logits"], expected)
    unsaid = CausalLm()
    unsaid.build_model(Member("a", dict(GPT2, n_positions=CONTEXT)))
    with pytest.raises(ConfigError, match=r"same context, or the paradigm one .* context=512"):
        unsaid.build_model(Member("b", longer))


def test_what_is_neither_here_nor_to_be_downloaded_says_what_to_give(tmp_path):
    """In a process of its own, as transformers reads only once whether it is offline."""
    code = (
        "from compt.interfaces import Member\n"
        "from compt.paradigms.causal_lm.paradigm import CausalLm\n"
        f"unknown = ({{}}, 'nobody/model'), (dict(tokenizer='nobody/tokens'), {LLAMA!r})\n"
        "for options, model in unknown:\n"
        "    try: CausalLm(**options).build_model(Member('a', model))\n"
        "    except Exception as error: print(type(error).__name__, error)"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    model, tokenizer = done.stdout.split("ConfigError ")[1:]
    assert "'nobody/model' of member 'a'" in model and "'nobody/tokens'" in tokenizer
    for message in (model, tokenizer):
        assert "a folder with" in message and "in the cache or can be downloaded" in message


def test_a_folder_without_a_config_is_refused(tmp_path):
    assert f"'{tmp_path}' of member 'a'" in refused(str(tmp_path))


def test_options_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"No attention 'spda'\. Did you mean 'sdpa'"):
        CausalLm(attention="spda")
    for key in ("context", "eval_blocks"):
        with pytest.raises(ConfigError, match=f"{key}=0 is below 1"):
            CausalLm(**{key: 0})
    with pytest.raises(ConfigError, match=r"no data(.|\n)*stdlib"):
        made()[0].build_dataset("train")
    with pytest.raises(ConfigError, match="context is not known before a member has been built"):
        CausalLm(data=corpus(tmp_path)).build_dataset("train")
    with pytest.raises(ConfigError, match="nosuch"):
        CausalLm(data=dict(type="nosuch"), context=8)


def test_the_context_is_the_models_own_where_none_is_given(tmp_path):
    paradigm = CausalLm(data=corpus(tmp_path))
    paradigm.build_model(Member("a", dict(LLAMA, max_position_embeddings=6)))
    assert paradigm.build_dataset("train")[0]["tokens"].shape == (7,)
    with pytest.raises(ConfigError, match="context 8, the members before it 6"):
        paradigm.build_model(Member("b", dict(LLAMA, max_position_embeddings=8)))
    bloom = dict(model_type="bloom", hidden_size=32, n_layer=2, n_head=4)
    paradigm = CausalLm(data=corpus(tmp_path), attention="eager")
    paradigm.build_model(Member("a", bloom))
    with pytest.raises(ConfigError, match=r"name no context(.|\n)*context=512"):
        paradigm.build_dataset("train")


def test_families_without_fused_attention_say_so():
    bloom = dict(model_type="bloom", hidden_size=32, n_layer=2, n_head=4)
    assert "attention='eager'" in refused(bloom)
    config = build(bloom, attention="eager").config
    assert config._attn_implementation == "eager"
    assert not hasattr(config, "max_position_embeddings")  # it has no limit


def test_the_number_of_samples_can_be_declared(tmp_path):
    data = corpus(tmp_path)
    paradigm = CausalLm(data=data, context=CONTEXT)
    blocks = paradigm.build_dataset("train")
    assert paradigm.splits == ("val",)
    assert blocks[0]["tokens"].dtype == torch.int64 and blocks[0]["tokens"].shape == (CONTEXT + 1,)
    assert bytes(blocks[0]["tokens"].tolist()) == b"The quick bro"
    assert paradigm.num_samples("train") == len(blocks)
    declared = CausalLm(data=dict(data, num_samples=10**9), context=CONTEXT)
    assert declared.num_samples("train") == 10**9
    assert declared.num_samples("val") == len(paradigm.build_dataset("val"))


def test_held_out_blocks_are_evenly_spaced_and_training_ones_all_there(tmp_path):
    data = corpus(tmp_path)
    whole, some = (CausalLm(data=data, context=CONTEXT, eval_blocks=blocks) for blocks in (None, 4))
    blocks, chosen = whole.build_dataset("val"), some.build_dataset("val")
    assert (len(blocks), len(chosen)) == (35, 4)
    for i, index in enumerate((0, 11, 23, 34)):
        assert torch.equal(chosen[i]["tokens"], blocks[index]["tokens"])
    assert len(some.build_dataset("train")) == len(whole.build_dataset("train"))
    assert len(CausalLm(data=data, context=CONTEXT, eval_blocks=99).build_dataset("val")) == 35


def test_a_chain_is_planned_where_its_tokenizer_is_not():
    """Plan on the meta device where the model says its vocabulary.

    To train it the tokenizer is needed.
    """
    paradigm = CausalLm(context=CONTEXT, tokenizer="/nowhere")
    with torch.device("meta"):
        assert (
            paradigm.build_model(Member("a", dict(LLAMA, vocab_size=999))).config.vocab_size == 999
        )
        with pytest.raises(ConfigError, match="'/nowhere' cannot be loaded"):
            paradigm.build_model(Member("a", LLAMA))
    with pytest.raises(ConfigError, match="'/nowhere' cannot be loaded"):
        paradigm.build_model(Member("a", dict(LLAMA, vocab_size=999)))


def test_sizes_are_the_families():
    assert build(dict(SIZES, model_type="gpt_neox")).gpt_neox.layers[
        1
    ].mlp.dense_h_to_4h.weight.shape == (48, 32)
