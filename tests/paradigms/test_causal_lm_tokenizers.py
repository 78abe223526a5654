"""Train chains of language models whose members have tokenizers of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")
from transformers import AutoModelForCausalLM, AutoTokenizer

import compt
from compt import ConfigError, GrowthError
from compt.cli import main
from compt.config import load_config
from compt.growth.models import build_member, build_paradigm
from compt.interfaces import Member
from compt.paradigms.causal_lm import ByteTokenizer, CausalLm
from compt.paradigms.text.token_bytes import token_bytes
from compt.planning.memory import memory
from compt.training.preflight import check_data
from compt.training.stage import StageModel
from compt.weights import save_weights
from tests.paradigms.lm_models import GPT2, LLAMA, TEXTS, corpus, save_bpe
from tests.training.conftest import MSE, at

LARGE = dict(
    LLAMA, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8
)
BATCH = 4


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> str:
    return save_bpe(tmp_path_factory.mktemp("bpe"), texts=TEXTS * 5, size=300)


def chain(folder: Path, tokenizers, **options) -> dict:
    """The config of a GPT-2 that teaches a Llama."""
    paradigm = dict(type="causal_lm", data=corpus(folder), context=24, tokenizers=tokenizers)
    lengths = options.pop("lengths", [dict(iters=30), dict(iters=6)])
    members = [dict(name="gpt2", model=GPT2), dict(name="llama", model=LARGE)]
    return dict(
        paradigm=paradigm,
        chain=[{**member, **length} for member, length in zip(members, lengths, strict=True)],
        grower=dict(type="scratch"),
        transfer=dict(MSE, weight=1.0),
        evaluations=1,
        train_dataloader=dict(batch_size=BATCH),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-2)),
        **options,
    )


def config_file(folder: Path, tokenizers, **options) -> str:
    path = folder / "config.py"
    content = chain(folder, tokenizers, **options)
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in content.items()))
    return str(path)


def stage(bpe: str, folder: Path, owner: str, *, transfer=MSE, **options) -> StageModel:
    """A stage in which a teacher of another tokenizer is run on random weights."""
    paradigm = dict(type="causal_lm", context=24, tokenizers={owner: bpe})
    teacher = build_member(build_paradigm(paradigm), Member("gpt2", GPT2), seed=5)
    save_weights(teacher, folder / "teacher.safetensors")
    return StageModel(
        paradigm,
        dict(name="llama", model=LLAMA),
        teacher=dict(name="gpt2", model=GPT2, weights=str(folder / "teacher.safetensors")),
        transfer=transfer,
        **options,
    )


def tokens(model: StageModel) -> torch.Tensor:
    """A batch of the student's tokens [2, 25]."""
    ids = model.paradigm.tokenizer.encode(["".join(TEXTS * 3)])[0].astype(int)
    return torch.from_numpy(ids[:50]).view(2, 25)


@pytest.mark.parametrize("owner", ["gpt2", "llama"])
def test_a_chain_trains_by_features(bpe, tmp_path, owner):
    config = config_file(tmp_path, {owner: bpe}, teacher=dict(cache=str(tmp_path / "teachers")))
    assert main(["train", config, "--work-dir", str(tmp_path / "run")]) == 0
    sizes = {"gpt2": 257, "llama": 257, owner: 300}
    for number, name in enumerate(("gpt2", "llama"), start=1):
        folder = tmp_path / "run" / f"{number:02}_{name}"
        metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
        bits = metrics["val/bits_per_byte"]
        assert bits["value"] < bits["chance"]
        tokenizer = AutoTokenizer.from_pretrained(folder / "export")
        model = AutoModelForCausalLM.from_pretrained(folder / "export")
        assert len(tokenizer) == sizes[name] == model.config.vocab_size
        assert model.config.eos_token_id == tokenizer.eos_token_id
    text = "The quick brown"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert any((tmp_path / "teachers").rglob("*.safetensors"))


def test_a_stage_reads_with_its_students_tokenizer(bpe, tmp_path):
    student_of_bpe, teacher_of_bpe = (stage(bpe, tmp_path, name) for name in ("llama", "gpt2"))
    assert student_of_bpe.paradigm.tokenizer.size == student_of_bpe.student.config.vocab_size == 300
    assert isinstance(teacher_of_bpe.paradigm.tokenizer, ByteTokenizer)
    assert teacher_of_bpe.teachers()[0].config.vocab_size == 300


@pytest.mark.parametrize("owner", ["gpt2", "llama"])
def test_the_teacher_reads_the_text_of_the_batch(bpe, tmp_path, owner):
    """What it reads is the student's text; its features come to the student's positions."""
    model = stage(bpe, tmp_path, owner).eval()
    (teacher,) = model.teachers()
    read = []
    decoder = teacher.get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"]), with_kwargs=True
    )
    ids = tokens(model)
    batch = model.paradigm.prepare({"tokens": ids}, generator=model.generator())
    targets = model.teacher.outputs(batch, frozenset({"hidden"}))
    hook.remove()
    own, theirs = (
        model.paradigm._tokenizer_of(m.compt_tokenizer) for m in (model.student, teacher)
    )
    pieces = [token_bytes(tokenizer.inner, "") for tokenizer in (own, theirs)]
    texts = [b"".join(pieces[0][i] for i in row) for row in batch["input_ids"].tolist()]
    found = b"".join(pieces[1][i] for row in read[0].tolist() for i in row)
    assert b"".join(texts).startswith(found[:20]) and len(found) >= 40
    assert targets["hidden"].shape == (2, 24, 32)
    states = decoder(input_ids=read[0]).last_hidden_state.flatten(0, 1)
    matches = (targets["hidden"].flatten(0, 1)[:, None] - states[None]).abs().amax(-1) < 1e-6
    assert matches.any(1).all()


@pytest.mark.parametrize(
    "performance",
    [
        pytest.param(dict(compile=dict(backend="eager")), marks=pytest.mark.slow),
        dict(mini_batch_size=1),
    ],
)
def test_it_is_the_same_compiled_and_in_mini_batches(bpe, tmp_path, performance):
    plain, other = (
        stage(bpe, tmp_path, "gpt2", performance=options).train() for options in ({}, performance)
    )
    batch = tokens(plain)
    losses = [at(model, 2)(mode="loss", tokens=batch) for model in (plain, other)]
    assert losses[0]["transfer/feature_mse"] > 0
    for name, value in losses[0].items():
        assert torch.allclose(value, losses[1][name], rtol=1e-4), name


@pytest.mark.parametrize("owner", ["gpt2", "llama"])
def test_a_plan_counts_about_what_the_teacher_is_run_on(bpe, tmp_path, owner):
    planned = compt.plan(chain(tmp_path, {owner: bpe}))
    assert planned.stages[1].teacher_flops > 0
    alike = compt.plan(chain(tmp_path, None))
    ratio = planned.stages[1].teacher_flops / alike.stages[1].teacher_flops
    # 24 bytes are about 10 tokens, padded to 24; 24 tokens are about 50 bytes, in windows of 24.
    assert ratio == pytest.approx(1) if owner == "gpt2" else 1.5 < ratio < 4


def test_epochs_are_those_of_each_members_tokenizer(bpe, tmp_path):
    lengths = [dict(epochs=2), dict(epochs=1)]
    config = chain(tmp_path, {"llama": bpe}, lengths=lengths)
    planned = compt.plan(config)
    for stage_plan, epochs in zip(planned.stages, (2, 1), strict=True):
        paradigm = build_paradigm(config["paradigm"])
        model = GPT2 if stage_plan.name == "gpt2" else LARGE
        paradigm.build_model(Member(stage_plan.name, model))
        num_blocks = len(paradigm.build_dataset("train"))
        assert stage_plan.iters == epochs * (num_blocks // BATCH)


def test_data_is_opened_before_training_with_every_tokenizer(bpe, tmp_path):
    checked = check_data(load_config(config_file(tmp_path, {"llama": bpe})))
    counts = {name: found["samples"] for name, found in checked.fingerprints.items()}
    assert set(counts) == {"train", "val", "train of 'llama'", "val of 'llama'"}
    assert counts["train of 'llama'"] < counts["train"] / 2
    same = check_data(load_config(config_file(tmp_path, {"gpt2": None})))
    assert set(same.fingerprints) == {"train", "val"}


def test_logits_are_refused(bpe, tmp_path):
    kl = dict(type="logit_kl")
    with pytest.raises(ConfigError, match=r"logit_kl compares(.|\n)*feature_mse"):
        compt.plan(chain(tmp_path, {"llama": bpe}) | dict(transfer=kl))
    # As many tokens, which are others.
    other = save_bpe(tmp_path / "other", texts=["other words"], size=257)
    with pytest.raises(ConfigError, match=r"logits are of other tokens(.|\n)*feature_mse"):
        compt.plan(chain(tmp_path, {"llama": other}) | dict(transfer=kl))


def test_growth_is_refused(bpe, tmp_path):
    config = chain(tmp_path, {"llama": bpe}) | dict(grower=dict(type="lossless"))
    config["chain"][0]["model"] = LLAMA
    with pytest.raises(GrowthError, match=r"'vocab' changes from 257 to 300"):
        compt.plan(config)


def test_growth_between_vocabularies_of_one_size_is_warned_of(tmp_path):
    other = save_bpe(tmp_path / "other", texts=["other words"], size=257)
    config = chain(tmp_path, {"llama": other}) | dict(grower=dict(type="lossless"))
    config["chain"][0]["model"] = {**LLAMA, "num_hidden_layers": 1}
    warned = "'gpt2' -> 'llama': the two read the data in different ways"
    assert any(warned in warning for warning in compt.plan(config).warnings)
    alike = {**config, "paradigm": {**config["paradigm"], "tokenizers": None}}
    assert not any("different ways" in warning for warning in compt.plan(alike).warnings)


@pytest.mark.parametrize(
    ("tokenizers", "message"),
    [
        (dict(lama=None), r"no member 'lama'. Did you mean 'llama'(.|\n)*paradigm.tokenizers"),
        (dict(llama=3), "tokenizers"),
        (dict(llama=""), "names no tokenizers"),
        (["llama"], "tokenizers"),
        (dict(llama="/not/there"), "cannot be loaded"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, tokenizers, message):
    with pytest.raises(ConfigError, match=message):
        compt.plan(chain(tmp_path, tokenizers))


def test_tokens_in_files_are_of_one_tokenizer(bpe, tmp_path):
    (tmp_path / "ids.bin").write_bytes(bytes(1000))
    config = chain(tmp_path, {"llama": bpe})
    config["paradigm"]["data"] = dict(
        type="tokens", train=str(tmp_path / "ids.bin"), val=str(tmp_path / "ids.bin")
    )
    with pytest.raises(ConfigError, match=r"tokens already(.|\n)*Give text"):
        compt.plan(config)


def test_members_of_one_tokenizer_share_the_vocabulary(bpe):
    paradigm = CausalLm(context=8, tokenizers={"b": bpe, "c": bpe})
    paradigm.build_model(Member("a", LLAMA))
    paradigm.build_model(Member("b", dict(LLAMA, vocab_size=340)))
    assert paradigm.build_model(Member("c", LLAMA)).config.vocab_size == 340
    with pytest.raises(ConfigError, match="vocab_size 350, the members before it 340"):
        paradigm.build_model(Member("c", dict(LLAMA, vocab_size=350)))


def test_weights_are_held_against_the_members_tokenizer(bpe, tmp_path):
    paradigm = CausalLm(context=8, tokenizers={"b": bpe})
    models = {name: paradigm.build_model(Member(name, LLAMA)) for name in "ab"}
    for name, model in models.items():
        (tmp_path / name).mkdir()
        paradigm.export(model, tmp_path / name)
        paradigm.load_weights(model, tmp_path / name)
        assert paradigm.load(tmp_path / name).config.vocab_size == {"a": 257, "b": 300}[name]
    save_bpe(tmp_path / "b", texts=[text.upper() for text in TEXTS] * 5, size=300)
    with pytest.raises(ConfigError, match=r"not the member's(.|\n)*tokenizers=dict"):
        paradigm.load_weights(models["b"], tmp_path / "b")


def test_a_followed_folder_says_nothing_of_another_vocabulary(bpe, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    first = CausalLm(context=8, tokenizer=bpe)
    first.export(first.build_model(Member("a", dict(LLAMA, vocab_size=400))), folder)
    paradigm = CausalLm(context=8, data=corpus(tmp_path), tokenizers={"b": None})
    paradigm.follow(folder)
    models = [paradigm.build_model(Member(name, LLAMA)) for name in "ab"]
    assert [model.config.vocab_size for model in models] == [400, 257]
    assert [model.config.eos_token_id for model in models] == [0, 256]
    assert paradigm.tokenizer.size == 300
    (tmp_path / "out").mkdir()
    paradigm.export(models[1], tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("é")["input_ids"] == [195, 169]
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert said["eos_token_id"] == 256


def test_without_the_option_nothing_is_other_than_it_was(tmp_path):
    plain, shared = CausalLm(context=8), CausalLm(context=8, tokenizers={"b": None})
    for paradigm, extra in ((plain, set()), (shared, {"tokenizer"})):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = paradigm.build_model(Member("a", LLAMA)).eval()
        batch = paradigm.example_batch(model, 2)
        assert set(batch) == {"input_ids", "labels"} | extra
        assert hasattr(model, "compt_tokenizer") == bool(extra)
        needs = frozenset({"logits", "hidden"})
        found = paradigm.teacher_forward(model, batch, needs)
        expected = plain.forward(model, batch)
        assert all(torch.equal(found[name], expected[name]) for name in needs)


def test_a_plan_is_made_where_the_tokenizer_is_not(tmp_path):
    config = chain(tmp_path, {"llama": str(tmp_path / "not" / "here")})
    config["chain"][1]["model"] = dict(LARGE, vocab_size=300)
    planned = compt.plan(config)
    assert planned.stages[1].teacher_flops > 0
    assert memory(load_config(config), planned)[1].teacher > 0
    with pytest.raises(ConfigError, match="cannot be loaded"):
        check_data(load_config(config))
