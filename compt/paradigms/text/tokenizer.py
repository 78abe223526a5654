"""Open tokenizers of transformers, or read the bytes of UTF-8, which needs no download."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.utils import logging

from compt.errors import ConfigError

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Ids:
    """What model configs need of a tokenizer, its number of ids and those of special tokens."""

    size: int
    eos: int | None
    bos: int | None
    pad: int | None


UNKNOWN = Ids(0, None, None, None)
"""Stand for a tokenizer that is not there, and fit any model."""


class LmTokenizer:
    """A tokenizer of transformers, as data and model configs need it.

    Attributes:
        size: one more than the largest id, special tokens included.
        eos: id of the token that ends a document.
        bos, pad: ids, or None where the tokenizer has none.
        fingerprint: SHA-256 of what decides the ids of a text.
        is_extended: whether it has got special tokens that its files do not hold.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, where: str = "paradigm.tokenizer"
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "The tokenizer has no end-of-text token, with which documents are told apart.",
                where=where,
                do="Set eos_token in its tokenizer_config.json.",
            )
        self.inner = tokenizer
        self.is_extended = False
        self._read()

    def _read(self) -> None:
        """Take size, special ids and fingerprint from transformers' tokenizer."""
        tokenizer = self.inner
        vocabulary = tokenizer.get_vocab()
        self.size = max(vocabulary.values()) + 1
        self.eos, self.bos, self.pad = (
            tokenizer.eos_token_id,
            tokenizer.bos_token_id,
            tokenizer.pad_token_id,
        )
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            content = backend.to_str()
        else:
            content = json.dumps([type(tokenizer).__name__, vocabulary])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self.dtype = np.uint16 if self.size <= 2**16 else np.uint32

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without special tokens.

        Names of special tokens in a text are text like any other: a page that shows
        '<|endoftext|>' does not end there.
        """
        encoded = self.inner(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [np.asarray(ids, dtype=self.dtype) for ids in encoded["input_ids"]]

    def add_special_tokens(self, **tokens: str) -> None:
        """Add special tokens that it lacks, behind its vocabulary, as ``mask_token='[MASK]'``."""
        absent: dict[str, Any] = {
            kind: token for kind, token in tokens.items() if getattr(self.inner, kind) is None
        }
        if absent:
            self.inner.add_special_tokens(absent)
            self.is_extended = True
            self._read()

    def save(self, folder: Path) -> None:
        """Write the files that ``AutoTokenizer.from_pretrained`` loads."""
        self.inner.save_pretrained(folder)


class ByteTokenizer(LmTokenizer):
    """Read the bytes of UTF-8 as ids 0 to 255, and the end of a text as 256.

    It is byte-level BPE without any merge, so that transformers saves and loads it.
    """

    def __init__(self) -> None:
        vocabulary = {character: byte for byte, character in bytes_to_unicode().items()}
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=False
        )
        backend.decoder = tokenizers.decoders.ByteLevel()
        super().__init__(
            PreTrainedTokenizerFast(
                tokenizer_object=backend,
                bos_token=END_OF_TEXT,
                eos_token=END_OF_TEXT,
                split_special_tokens=True,
            )
        )

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the bytes of each text.

        What UTF-8 cannot hold (half a surrogate pair) becomes '?'.
        """
        return [
            np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(self.dtype)
            for text in texts
        ]


def open_tokenizer(source: str | Path | None) -> LmTokenizer:
    """Open a folder or name that transformers loads, or the byte-level tokenizer for None.

    Raises:
        ConfigError: it is not there, not in the cache and not to be downloaded, or needs code of
            its own.
    """
    if source is None:
        return ByteTokenizer()
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except Exception as error:  # transformers, tokenizers and the hub each have their own
        raise ConfigError(
            f"The tokenizer '{source}' cannot be loaded: {type(error).__name__}: {error}",
            where="paradigm.tokenizer",
            do="Give a folder with tokenizer.json, or a name that is in the cache or can be "
            "downloaded; without any, texts are read as bytes.",
        ) from error
    return LmTokenizer(tokenizer, where=f"tokenizer '{source}'")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal, but let errors through."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
