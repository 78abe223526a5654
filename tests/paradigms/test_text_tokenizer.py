"""Read texts by the byte-level tokenizer and by those that transformers loads."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from compt import ConfigError
from compt.data.text import open_tokens
from compt.paradigms.text.tokenizer import ByteTokenizer, LmTokenizer, open_tokenizer
from tests.paradigms.lm_models import TEXTS, corpus, silence

HARD = [
    "",
    " ",
    "  two leading, and two trailing  ",
    "line\r\nend\n\n\ttab\x0b\x0c",
    "".join(map(chr, range(256))),
    "😀 👩‍👩‍👧 é é 日本 \u200b\ufeff\u2028 \U0010ffff",
    "don't , stop . 's !",
    "<|endoftext|> is no mark here: <|endoftext|>",
    "\x00\x01\x1f\x7f",
]


@pytest.fixture(scope="module")
def merged(tmp_path_factory) -> str:
    """The folder of a small BPE with merges, an end and a padding token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<end>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 5, trainer)
    folder = tmp_path_factory.mktemp("merged")
    inner = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", model_max_length=100
    )
    inner.save_pretrained(folder)
    return str(folder)


def test_ids_are_the_bytes_and_the_end_comes_after_them():
    tokenizer = ByteTokenizer()
    assert (tokenizer.size, tokenizer.eos, tokenizer.bos, tokenizer.pad) == (257, 256, 256, None)
    assert [ids.tolist() for ids in tokenizer.encode(["Az", "é", ""])] == [
        [65, 122],
        [195, 169],
        [],
    ]


@pytest.mark.parametrize("text", HARD)
def test_the_fast_path_gives_the_tokenizers_own_ids(text):
    tokenizer = ByteTokenizer()
    (fast,), (slow,) = tokenizer.encode([text]), LmTokenizer.encode(tokenizer, [text])
    assert fast.dtype == slow.dtype == np.uint16
    assert fast.tolist() == slow.tolist() == list(text.encode())


def test_random_text_is_encoded_alike_and_comes_back(tmp_path):
    random = np.random.default_rng(0)
    points = random.integers(0, 0x110000, 4000)
    texts = [
        "".join(map(chr, p[(p < 0xD800) | (p > 0xDFFF)]))
        for p in (points, points % 0x3000, points % 256)
    ]
    ByteTokenizer().save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in zip(texts, ByteTokenizer().encode(texts)):
        assert ids.tolist() == loaded(text)["input_ids"]
        assert loaded.decode(ids.tolist()) == text


@pytest.mark.parametrize("text", HARD)
def test_what_is_saved_loads_and_gives_every_text_back(text, tmp_path, capfd):
    tokenizer = ByteTokenizer()
    with silence(capfd):
        tokenizer.save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded(text)["input_ids"]
    assert ids == list(text.encode())
    assert loaded.decode([*ids, 256], skip_special_tokens=True) == text
    assert (len(loaded), loaded.eos_token_id) == (257, 256)


def test_half_a_surrogate_pair_becomes_a_question_mark():
    assert ByteTokenizer().encode(["a\ud83db"])[0].tolist() == list(b"a?b")


def test_the_fingerprint_is_of_the_serialised_tokenizer(merged, tmp_path):
    tokenizer = ByteTokenizer()
    ByteTokenizer().save(tmp_path)
    assert (
        tokenizer.fingerprint
        == hashlib.sha256(tokenizer.inner.backend_tokenizer.to_str().encode()).hexdigest()
    )
    assert open_tokenizer(tmp_path).fingerprint == ByteTokenizer().fingerprint
    assert (
        open_tokenizer(merged).fingerprint
        == open_tokenizer(merged).fingerprint
        != tokenizer.fingerprint
    )
    used = open_tokenizer(merged)
    used.encode(HARD)
    assert used.fingerprint == LmTokenizer(used.inner).fingerprint


def test_a_tokenizer_of_transformers_gives_its_ids_without_special_tokens(merged, capfd):
    inner = transformers.AutoTokenizer.from_pretrained(merged)
    with silence(capfd):
        tokenizer = open_tokenizer(merged)
        encoded = tokenizer.encode([*TEXTS, "x" * 5000])  # more than its model_max_length
    assert (tokenizer.size, tokenizer.eos, tokenizer.bos, tokenizer.pad) == (280, 0, None, 1)
    for text, ids in zip(TEXTS, encoded):
        assert ids.tolist() == inner(text, add_special_tokens=False)["input_ids"]
        assert len(ids) < len(text.encode()) and inner.decode(ids.tolist()) == text
    (literal,) = tokenizer.encode(["<end>"])
    assert 0 not in literal.tolist() and inner.decode(literal.tolist()) == "<end>"


def test_ids_with_gaps_count_up_to_the_largest():
    """Count an added token beyond the vocabulary, whose id needs a row of the embedding."""
    inner = ByteTokenizer().inner
    inner.add_tokens(["<|more|>"])
    assert LmTokenizer(inner).size == 258


def test_a_tokenizer_without_an_end_of_text_is_refused(merged, tmp_path):
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=ByteTokenizer().inner.backend_tokenizer
    ).save_pretrained(tmp_path)
    assert "eos_token" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    with pytest.raises(ConfigError, match=r"no end-of-text token(.|\n)*eos_token"):
        open_tokenizer(tmp_path)


def test_damaged_and_missing_tokenizers_are_config_errors(merged, tmp_path):
    ByteTokenizer().save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"cannot be loaded(.|\n)*paradigm.tokenizer"):
            open_tokenizer(source)


@pytest.mark.parametrize("kind", ["bytes", "merged"])
def test_texts_become_blocks(kind, merged, tmp_path):
    """End every document with the end token, and count the bytes."""
    tokenizer = open_tokenizer(merged if kind == "merged" else None)
    blocks = open_tokens(corpus(tmp_path), "val", tokenizer, 8)
    text = "".join(TEXTS) * 5
    expected = [*tokenizer.encode([text])[0].tolist(), tokenizer.eos]
    assert (blocks.num_tokens, blocks.num_bytes) == (len(expected), len(text.encode()))
    assert blocks[3]["tokens"].tolist() == expected[24:33]
