"""Give a student's positions those of a teacher that reads the same text in other tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.causal_lm import ByteTokenizer, CausalLm, LmTokenizer, open_tokenizer
from compt.paradigms.text.alignment import Alignment, char_bytes, planned, whole_characters
from compt.paradigms.text.token_bytes import token_bytes
from tests.paradigms.lm_models import GPT2, TEXTS, save_bpe

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "c"), ("a", "t")]
"""'the cat' is 'the', ' c', 'at' by them."""
END = 256
"""The student's end of a text, where it reads bytes."""


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> LmTokenizer:
    return open_tokenizer(save_bpe(tmp_path_factory.mktemp("bpe"), MERGES))


def sentencepiece() -> LmTokenizer:
    """A tokenizer in the form of Llama 2's, which puts a space before each text."""
    pieces = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"thecat"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "c"), ("a", "t")]
    pieces += ["".join(pair) for pair in merges]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    inner = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    return LmTokenizer(inner)


def rows_and_index(alignment: Alignment, ids: list[int]) -> tuple[list[list[int]], list[int]]:
    aligned = alignment(torch.tensor([ids]))
    return aligned.rows.tolist(), aligned.index[0].tolist()


def read(alignment: Alignment, ids: list[int]) -> tuple[list[bytes], list[int]]:
    """What the teacher reads up to the last position that is asked for, and the positions."""
    rows, index = rows_and_index(alignment, ids)
    pieces = token_bytes(alignment.teacher.inner, "")
    marked = {alignment.teacher.eos: b"|"}
    tokens = [marked.get(token, pieces[token]) for row in rows for token in row]
    return tokens[: max(index) + 1], index


CASES = {
    "a token ends at its last letter": (
        list(b"the cat"),
        [b"|", b"the", b" c", b"at"],
        [0, 0, 1, 1, 2, 2, 3],
    ),
    "an end of text is one for both": (
        [*b"the", END, *b"cat"],
        [b"|", b"the", b"|", b"c", b"at"],
        [0, 0, 1, 2, 3, 3, 4],
    ),
    "and the mark in front, where it comes first": (
        [END, *b"the", END],
        [b"|", b"the", b"|"],
        [0, 0, 0, 1, 2],
    ),
    "two in a row": ([*b"at", END, END], [b"|", b"at", b"|", b"|"], [0, 1, 2, 3]),
    "a letter of two bytes is two tokens": (
        list("thé".encode()),
        [b"|", b"th", b"\xc3", b"\xa9"],
        [0, 1, 2, 3],
    ),
    "a block begins within a letter": (
        [*"é".encode()[1:], *b"the"],
        [b"|", b"the"],
        [0, 0, 0, 1],
    ),
    "a block ends within a letter": (
        [*b"the", *"😀".encode()[:3]],
        [b"|", b"the"],
        [0, 0, 1, 1, 1, 1],
    ),
    "nothing but a piece of one": ([*"😀".encode()[1:3]], [b"|"], [0, 0]),
    "a byte that is no letter": (
        list(b"t\xffh"),
        [b"|", b"t", *(bytes([b]) for b in "\ufffd".encode()), b"h"],
        [1, 4, 5],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_positions_worked_out_by_hand(bpe, case):
    ids, tokens, index = CASES[case]
    assert read(Alignment(ByteTokenizer(), bpe, 64), ids) == (tokens, index)


def test_a_teacher_of_bytes_is_read_at_the_last_byte_of_each_token(bpe):
    ids = bpe.encode(["the cat"])[0].tolist()
    tokens = [b"|", *(bytes([byte]) for byte in b"the cat")]
    assert read(Alignment(bpe, ByteTokenizer(), 64), ids) == (tokens, [3, 5, 7])
    # A folder of bytes is read by the library tokenizers, with the same result.
    again = LmTokenizer(ByteTokenizer().inner)
    assert read(Alignment(bpe, again, 64), ids) == (tokens, [3, 5, 7])


def test_a_space_that_the_teacher_puts_before_a_text_is_not_counted():
    tokens, index = read(Alignment(ByteTokenizer(), sentencepiece(), 64), list(b"the cat"))
    assert (tokens, index) == ([b"|", b" the", b" c", b"at"], [0, 0, 1, 1, 2, 2, 3])


def test_a_sentencepiece_student_is_read_as_its_bytes():
    ids = sentencepiece().encode(["the caté"])[0].tolist()
    tokens, index = read(Alignment(sentencepiece(), ByteTokenizer(), 64), ids)
    assert b"".join(tokens) == "| the caté".encode()
    assert index == [4, 6, 8, 9, 10]


def test_what_does_not_fit_is_read_in_windows_with_an_end_before_each(bpe):
    ids, end = bpe.encode(["the cat"])[0].tolist(), 256
    rows, index = rows_and_index(Alignment(bpe, ByteTokenizer(), 4), ids)
    assert rows == [[end, *b"the"], [end, *b" ca"], [end, *b"t", end, end]]
    assert index == [3, 6, 9]


def test_rows_of_a_batch_are_padded_to_one_length(bpe):
    texts = ["the cat ", "aaaaaaaa"]
    ids = torch.tensor([list(text.encode()) for text in texts])
    aligned = Alignment(ByteTokenizer(), bpe, 300)(ids)
    assert aligned.rows.shape == (2, 64)
    assert aligned.rows[0, 4:].unique().tolist() != [0]
    assert (aligned.index[1] // 64).unique().tolist() == [1]
    assert aligned.index[0].max() < 64


def test_no_position_is_given_letters_that_the_student_has_not_read(tmp_path):
    """In random blocks of random bytes and ends of texts, both ways and in windows."""
    trained = open_tokenizer(save_bpe(tmp_path, texts=TEXTS * 5, size=300))
    draw = random.Random(0)
    for student, teacher in [(ByteTokenizer(), trained), (trained, ByteTokenizer())]:
        stream = [
            token
            for text in TEXTS * 3
            for token in (*student.encode([text])[0].tolist(), student.eos)
        ]
        pieces = [token_bytes(t.inner, "") for t in (student, teacher)]
        for context in (7, 64, 500):
            start = draw.randrange(len(stream) - 40)
            ids = stream[start : start + 40]
            rows, index = rows_and_index(Alignment(student, teacher, context), ids)
            length = len(rows[0])
            marks = [b"\0" if i == teacher.eos else pieces[1][i] for row in rows for i in row]
            for number, place in enumerate(index):
                row = place // length
                seen = b"".join(
                    b"".join(marks[r * length + (r > 0) : min((r + 1) * length, place + 1)])
                    for r in range(row + 1)
                )
                own = b"".join(
                    b"\0" if i == student.eos else pieces[0][i] for i in ids[: number + 1]
                )
                # A mark in front, and what is of a letter that begins before the block.
                own, seen = (text.removeprefix(b"\0") for text in (own, seen))
                own, seen = (text.lstrip(bytes(range(0x80, 0xC0))) for text in (own, seen))
                assert own.startswith(seen)
                assert len(own) - len(seen) <= 12  # it follows by a word at most


def test_a_models_features_do_not_change_with_what_comes_after(bpe):
    """A student of bytes is given a GPT-2's features, which know nothing of later words."""
    folder = bpe.inner.name_or_path
    paradigm = CausalLm(context=16, tokenizers={"teacher": folder})
    student = paradigm.build_model(Member("student", GPT2))
    teacher = paradigm.build_model(Member("teacher", GPT2)).eval()
    assert not paradigm.reads_otherwise(student, {})
    texts = [b"the cat at the t", b"the cat et cetra", b"the cat \xf0\x9f\x98\x80 at"]
    ids = torch.tensor([list(text[:15]) for text in texts])
    with torch.no_grad():
        hidden = paradigm.teacher_forward(teacher, {"input_ids": ids}, frozenset({"hidden"}))
    assert set(hidden) == {"hidden"} and hidden["hidden"].shape == (3, 15, 32)
    first, *others = hidden["hidden"]
    for other in others:
        same = torch.isclose(first, other, atol=1e-6).all(1)
        assert same[:7].all() and not same[8:].any()


def test_bytes_of_tokens_make_up_the_text(tmp_path):
    trained = open_tokenizer(save_bpe(tmp_path, texts=TEXTS * 5, size=300))
    for tokenizer in (trained, ByteTokenizer()):
        table = token_bytes(tokenizer.inner, "")
        for text in TEXTS:
            ids = tokenizer.encode([text])[0]
            assert b"".join(table[i] for i in ids) == text.encode()
        assert table[tokenizer.eos] == b""


def test_a_tokenizer_whose_tokens_are_no_pieces_of_text_is_refused():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "a": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    words = LmTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]"))
    for pair in [(words, ByteTokenizer()), (ByteTokenizer(), words)]:
        with pytest.raises(ConfigError, match=r"decoded by WordPiece(.|\n)*paradigm.tokenizers"):
            Alignment(*pair, 8)


@pytest.mark.parametrize("text", ["", "a", "é", "日本", "😀", "a😀é日"])
def test_characters_know_their_bytes(text):
    raw = text.encode()
    for start in range(len(raw) + 1):
        for stop in range(start, len(raw) + 1):
            left_out, characters = whole_characters(raw[start:stop])
            assert characters in text
            assert char_bytes(characters).sum() == len(characters.encode())
            rest = raw[start:stop][left_out + len(characters.encode()) :]
            assert left_out <= 3 and len(rest) <= 3
            assert characters.encode() == raw[start:stop][left_out:][: len(characters.encode())]


def test_plans_expect_about_as_many_rows_as_are_read(bpe):
    meta = torch.device("meta")
    expected = planned(3, 500, 0.25, 1000, meta)
    assert expected.rows.shape == (3, 128) and expected.index.shape == (3, 500)
    for tokens, context in [(500, 128), (127, 128), (128, 128), (129, 128), (255, 128)]:
        ids = torch.from_numpy(np.full((2, tokens), ord("x")))
        found = Alignment(ByteTokenizer(), bpe, context)(ids)
        assert planned(2, tokens, 1.0, context, meta).rows.shape == found.rows.shape
