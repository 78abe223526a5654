"""Read texts word by word, with a vocabulary of the training captions in place of CLIP's own.

CLIP's tokenizer has 49,408 tokens, whose embeddings outweigh all else in a small model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import get_clean_fn
from torch import Tensor

from compt.errors import ConfigError
from compt.interfaces import Images
from compt.interfaces.fingerprint import default_fingerprint, hash_of, probed

NAME = "words"
MARKS = PADDING, UNKNOWN, START, END = "<pad>", "<unknown>", "<start>", "<end>"
WORD = re.compile(r"\w+|[^\w\s]+")
"""What counts as a word, as the tokenizer splits texts."""
READ = 100_000
"""Samples whose captions are read, evenly spaced where there are more."""
FEWEST, MOST = 8, 1_000_000
"""Tokens that a vocabulary may have."""
OPTIONS = frozenset({"type", "size"})


def vocabulary_size(options: Mapping[str, Any]) -> int:
    """Return the size that ``tokenizer=dict(type='words', size=...)`` asks for.

    Raises:
        ConfigError: it asks for something else, or the package tokenizers is missing.
    """
    size = options.get("size")
    is_size = isinstance(size, int) and not isinstance(size, bool) and FEWEST <= size <= MOST
    if options.get("type") != NAME or set(options) != OPTIONS or not is_size:
        raise ConfigError(
            f"{dict(options)!r} is no tokenizer.",
            where="paradigm.tokenizer",
            do=f"Write dict(type='{NAME}', size=...), with a number of tokens from {FEWEST} to "
            f"{MOST:,}, or leave it out for CLIP's own.",
        )
    if find_spec("tokenizers") is None:
        raise ConfigError(
            f"The tokenizer '{NAME}' needs the package tokenizers, which is not installed.",
            where="paradigm.tokenizer",
            do="pip install tokenizers transformers",
        )
    return int(size)  # type: ignore[arg-type]


class Words:
    """A tokenizer of words in lower case, all others being one.

    Signs are words of their own. Token 0 pads, and the end mark is the highest, which is where
    open_clip's text tower reads off its features.

    Args:
        words: in the order in which they get tokens; see :func:`frequent_words`.
        size: tokens, marks and unknown words among them.
        context_length: ids of a text.
    """

    def __init__(self, words: Iterable[str], size: int, context_length: int) -> None:
        from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
        from tokenizers.models import WordLevel

        tokens = (PADDING, UNKNOWN, START, *islice(words, size - len(MARKS)), END)
        self.vocab_size, self.context_length = len(tokens), context_length
        numbers = {token: number for number, token in enumerate(tokens)}
        self._tokenizer = Tokenizer(WordLevel(numbers, unk_token=UNKNOWN))
        self._tokenizer.normalizer = normalizers.Lowercase()
        self._tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self._tokenizer.add_special_tokens(list(MARKS))
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}",
            special_tokens=[(mark, numbers[mark]) for mark in (START, END)],
        )

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """Return the ids of texts, int64 [N, context]."""
        length = context_length or self.context_length
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=0, pad_token=PADDING)
        texts = [texts] if isinstance(texts, str) else texts
        # Not encode_batch: its threads would be lost in the worker processes that are forked.
        return torch.tensor([self._tokenizer.encode(_clean(text)).ids for text in texts])

    def save_pretrained(self, folder: Path) -> None:
        """Write the files that transformers, and through it open_clip, opens it from."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": PADDING,
            "unk_token": UNKNOWN,
            "bos_token": START,
            "eos_token": END,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


_last_read: dict[str, tuple[str, ...]] = {}
"""Words of the captions that were read last, by what these were."""


def words_of_split(images: Images, source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words of a split's captions, as :func:`frequent_words`.

    Captions are read again only where they may have changed: every stage of a chain opens its
    split several times, to check, train and export, and reading 400,000 captions takes seconds.

    Args:
        images: the split.
        source: the config that it was opened by.
    """
    if images.fingerprint == default_fingerprint(images):  # which is not of what they say
        return tuple(frequent_words(captions_of(images)))
    key = hash_of(dict(source), dict(images.fingerprint))
    if key not in _last_read:
        words = tuple(frequent_words(captions_of(images)))
        _last_read.clear()
        _last_read[key] = words
    return _last_read[key]


def frequent_words(captions: Iterable[str]) -> Iterator[str]:
    """Yield the words of captions, the most frequent first, of equals in alphabetical order."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(WORD.findall(_clean(caption).lower()))
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        if word not in MARKS:
            yield word


def _clean(text: str) -> str:
    """Return a text as open_clip reads it, plain ones without the search for wrong encodings."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split())
    cleaned: str = get_clean_fn("whitespace")(text)
    return cleaned


def captions_of(images: Images) -> Iterator[str]:
    """Yield the captions of a split, of many samples those of some."""
    captions: Any = getattr(images, "captions", lambda index: images[index]["captions"])
    for index in probed(len(images), READ):
        yield from captions(index)
