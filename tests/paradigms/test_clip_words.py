"""Read texts word by word, and hand the vocabulary on to open_clip."""

from __future__ import annotations

import copy

import pytest
import torch

open_clip = pytest.importorskip("open_clip")
pytest.importorskip("transformers")

from compt import ConfigError
from compt.interfaces import Images, Member
from compt.paradigms.clip import words
from compt.paradigms.clip.paradigm import Clip
from compt.paradigms.clip.words import Words, frequent_words, words_of_split
from tests.paradigms.clip_models import MODEL, made, raw

from .conftest import CAPTIONS

SMALL = copy.deepcopy(MODEL)
del SMALL["text_cfg"]["vocab_size"]
TOKENIZER = dict(type="words", size=14)
HARD = [
    *CAPTIONS,
    "",
    "  A   RED dog, a cat! ",
    "<start> dog <end> <pad> <unknown>",
    "&amp;amp; caf\u00e9 \u4f60\u597d \U0001f642 don\u2019t\tx\x1b[0m y",
    "dog " * 40,
]


def test_the_most_frequent_words_have_tokens():
    tokenizer = Words(frequent_words(["B b b, a", "a, c d", "<end>"]), 8, 6)
    assert tokenizer.vocab_size == 8
    # 0 to 2 are marks; b occurs three times, then come ',' and a, and the end mark is the highest
    assert tokenizer("b , a C").tolist() == [[2, 3, 4, 5, 1, 7]]
    longest = [2, 3, 3, 3, 3, 7]
    assert tokenizer(["b", "b " * 9]).tolist() == [[2, 3, 7, 0, 0, 0], longest]
    assert tokenizer("b " * 9, context_length=7).tolist() == [[2, 3, 3, 3, 3, 3, 7]]
    assert Words(["b"], 1000, 6).vocab_size == 5


class Sayings(Images):
    """A split without pictures, which says what it is made of, or nothing of it."""

    def __init__(self, captions: list[str], **fingerprint: str) -> None:
        self.texts, self.named, self.read = captions, fingerprint, 0

    @property
    def fingerprint(self):
        return self.named or super().fingerprint

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int):
        self.read += 1
        return {"captions": (self.texts[index],)}


def test_captions_are_read_again_only_where_they_may_have_changed():
    """The config of a source decides what of its files is a caption."""
    first, same = (Sayings(["a b", "b"], content="1") for _ in range(2))
    changed, other = Sayings(["c", "c d"], content="2"), Sayings(["e"], content="2")
    assert words_of_split(first, {"key": "x"}) == words_of_split(same, {"key": "x"}) == ("b", "a")
    assert (first.read, same.read) == (2, 0)
    assert words_of_split(changed, {"key": "x"}) == ("c", "d")
    assert words_of_split(other, {"key": "y"}) == ("e",)


def test_captions_of_a_split_that_does_not_say_what_they_are_are_read_every_time():
    """It has but a class and a length, which changed ones have too."""
    assert words_of_split(Sayings(["a"]), {}) == ("a",)
    assert words_of_split(Sayings(["b"]), {}) == ("b",)


def test_open_clip_reads_an_export_as_it_was_trained(data, tmp_path):
    paradigm, model = made(SMALL, data=data, tokenizer=TOKENIZER)
    assert model.token_embedding.weight.shape[0] == 14
    paradigm.export(model, tmp_path)
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    tokens = paradigm.tokenizer(HARD)
    assert torch.equal(tokens, theirs(HARD)) and len(tokens.unique()) > 10
    loaded, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    with torch.no_grad():
        assert torch.equal(loaded.eval().encode_text(tokens), model.encode_text(tokens))
    assert torch.equal(raw(paradigm.build_dataset("val"))["text"], paradigm.tokenizer(CAPTIONS))


def test_who_follows_an_export_keeps_its_vocabulary(data, tmp_path):
    """Whatever the new data says: tokens of other words would meet the embeddings of these."""
    paradigm, model = made(SMALL, data=data, tokenizer=TOKENIZER)
    paradigm.export(model, tmp_path)
    other = dict(data, train=data["val"], caption_key="label")
    for options in (dict(data=other, tokenizer=TOKENIZER), dict(data=other), {}):
        follower = Clip(**options)
        if options:
            follower.follow(tmp_path)
            follower.build_model(Member("a", SMALL))
        else:
            follower.load(tmp_path)
        assert torch.equal(follower.tokenizer(HARD), paradigm.tokenizer(HARD))


def test_captions_that_are_cut_are_counted(data):
    short = copy.deepcopy(SMALL)
    short["text_cfg"]["context_length"] = 3
    paradigm, _ = made(short, data=data, tokenizer=TOKENIZER)
    dataset = paradigm.build_dataset("val")
    assert dataset.left_out.parts["samples whose caption is cut to 3 tokens"] == 7  # not "nothing"


@pytest.mark.parametrize(
    "tokenizer",
    [
        {},
        dict(type="bpe", size=20),
        dict(type="words"),
        dict(type="words", size=7),
        dict(type="words", size=2.5),
        dict(type="words", size=True),
        dict(type="words", size=10**9),
        dict(type="words", size=20, lower=False),
    ],
    ids=str,
)
def test_what_is_no_tokenizer_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"(?s)is no tokenizer.*paradigm.tokenizer"):
        Clip(tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 49408),
        ("hf_tokenizer_name", "gpt2"),
        ("tokenizer_kwargs", {"clean": "lower"}),
    ],
)
def test_a_member_with_another_vocabulary_is_refused(data, key, value):
    model = copy.deepcopy(SMALL)
    model["text_cfg"][key] = value
    paradigm = Clip(data=data, tokenizer=TOKENIZER)
    with pytest.raises(ConfigError, match=rf"'a' has text_cfg.{key}=.*14 words"):
        paradigm.build_model(Member("a", model))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(words, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tokenizers"):
        Clip(tokenizer=TOKENIZER)
