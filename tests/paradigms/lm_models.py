"""Small language models of every family, a corpus, and their batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from compt.interfaces import Member
from compt.paradigms.causal_lm import CausalLm
from compt.testing.contracts import randomised

CONTEXT = 12

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
GROUPED = dict(SIZES, num_key_value_heads=2, head_dim=16)

LLAMA = dict(SIZES, model_type="llama")
GPT2 = dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4)
FAMILIES = {
    "llama": LLAMA,
    "llama_tied": dict(LLAMA, tie_word_embeddings=True),
    "mistral": dict(GROUPED, model_type="mistral"),
    "mistral_windowed": dict(GROUPED, model_type="mistral", sliding_window=5),
    "qwen2": dict(SIZES, model_type="qwen2", num_key_value_heads=2),
    "qwen3": dict(GROUPED, model_type="qwen3"),
    "gpt2": GPT2,
    "gpt_neox": dict(SIZES, model_type="gpt_neox"),
}

TEXTS = [
    "The quick brown fox, ",
    "naïve café; 😀\n",
    "if x:\n    return 'y'\n",
    "jumps over the lazy dog. ",
]


def corpus(folder: Path) -> dict:
    """A data config of two splits of text files."""
    for split, times in (("train", 40), ("val", 5)):
        (folder / f"{split}.txt").write_text("".join(TEXTS) * times, encoding="utf-8")
    return dict(
        type="text",
        train=str(folder / "train.txt"),
        val=str(folder / "val.txt"),
        cache_dir=str(folder / "cache"),
    )


def made(model=LLAMA, *, seed: int = 0, **options) -> tuple[CausalLm, nn.Module]:
    """A paradigm and a model of it with random gains and biases, in eval mode."""
    paradigm = CausalLm(**{"context": CONTEXT, **options})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return paradigm, randomised(paradigm.build_model(Member("a", model)), scale=0.05).eval()


def tokens(rows: int = 3, size: int = 257, seed: int = 0) -> torch.Tensor:
    """Random tokens [rows, CONTEXT + 1]."""
    return torch.randint(size, (rows, CONTEXT + 1), generator=torch.Generator().manual_seed(seed))


def prepared(paradigm: CausalLm, token: torch.Tensor):
    return paradigm.prepare({"tokens": token}, generator=torch.Generator().manual_seed(0))


@contextmanager
def silence(capfd) -> Iterator[None]:
    """Fail where something is printed, or logged by transformers to its own stream."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = records.append
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []
    assert capfd.readouterr() == ("", "")


def save_bpe(
    folder: Path,
    merges: Sequence[tuple[str, str]] = (),
    *,
    texts: Sequence[str] = (),
    size: int = 0,
) -> str:
    """Save byte-level BPE that splits words as GPT-2's does, and return its folder.

    It has these merges of byte-level characters, or learns its vocabulary from texts. The end of a
    text comes first, so that ids are not those of bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<end>", *alphabet])}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if texts:
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<end>"],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
    inner = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    inner.save_pretrained(folder)
    return str(folder)
