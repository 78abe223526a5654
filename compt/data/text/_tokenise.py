"""Tokenises the documents of a source once and keeps the tokens in a verified file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compt.data._cache import key_of, once, progress
from compt.data.text._pieces import bounded
from compt.errors import ConfigError, DataError
from compt.files import sha256
from compt.interfaces import Text, Tokens, TokenSpan
from compt.interfaces.left_out import LeftOut
from compt.writing import atomic, sweep

FORMAT = 2
BATCH = 1 << 20
"""About how many bytes of text are tokenised at a time."""
OVERHEAD = 64
"""Bytes that a text takes beside its own."""
SURROGATES = "pieces with characters that UTF-8 lacks, which became '?'"


class Tokenizer(Protocol):
    """What tokenising needs of a tokenizer.

    :class:`~compt.paradigms.causal_lm.LmTokenizer` is one for those that transformers loads.
    """

    @property
    def size(self) -> int:
        """Number of token ids, which are from 0 to ``size - 1``."""

    @property
    def eos(self) -> int:
        """The id put after every document."""

    @property
    def fingerprint(self) -> str:
        """Another text whenever the tokenizer is another, for the name of what is cached."""

    def encode(self, texts: Sequence[str]) -> Sequence[np.ndarray | Sequence[int]]:
        """Return the ids of each text, without special tokens."""


def tokenised(text: Text, tokenizer: Tokenizer, cache_dir: str | Path | None = None) -> Tokens:
    """Return the tokens of all documents, made now if the cache does not hold them undamaged.

    Memory does not grow with the text. Several processes may call this at once: one works, the
    others wait.

    Raises:
        ConfigError: the tokenizer gives ids that it should not.
        DataError: the text cannot be read or there is none, or the cache cannot be written.
    """
    dtype = "uint16" if tokenizer.size <= 1 << 16 else "uint32"
    ids = (tokenizer.fingerprint, tokenizer.size, tokenizer.eos)
    opened = dict(text.left_out.parts)
    tokens = once(
        f"tokens/{key_of(FORMAT, text.fingerprint, *ids)}.bin",
        cache_dir,
        find=lambda file: _intact(file, dtype),
        make=lambda file: _tokenise(text, tokenizer, file, dtype),
        megabytes=text.num_bytes * np.dtype(dtype).itemsize / 1e6,
    )
    if tokens.left_out is not None:
        # Files beside those that are read may have come or gone since they were tokenised.
        tokens.left_out.parts.update(opened)
    return tokens


def _intact(file: Path, dtype: str) -> Tokens | None:
    """Return what the cache holds, None if that is nothing or damaged.

    It is read through only if its date is not as written.
    """
    try:
        facts: dict[str, Any] = json.loads(file.with_suffix(".json").read_text("utf-8"))
        stat, count = file.stat(), int(facts["num_tokens"])
        if stat.st_size != count * np.dtype(dtype).itemsize:
            return None
        if stat.st_mtime_ns != facts["mtime_ns"] and sha256(file) != facts["sha256"]:
            return None
        span = TokenSpan(file, dtype, 0, count)
        left_out = LeftOut.from_json(facts["left_out"])
        num_bytes, digest = int(facts["num_bytes"]), str(facts["sha256"])
        return Tokens((span,), num_bytes, left_out.num_samples, left_out, digest)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tokenise(text: Text, tokenizer: Tokenizer, file: Path, dtype: str) -> Tokens:
    """Write tokens and facts, while the caller holds the lock."""
    sweep(file.parent, f".{file.stem}*.tmp")
    digest, count, num_bytes, num_documents = hashlib.sha256(), 0, 0, 0
    opened, repaired = set(text.left_out.parts), Counter[str]()
    with (
        atomic(file) as beside,
        beside.open("wb") as out,
        progress("tokenising", text.num_bytes or None) as advance,
    ):
        for texts, ends, size in _batches(text, repaired):
            tokens = _encode(tokenizer, texts, ends).astype(dtype)
            out.write(tokens.data)
            digest.update(tokens.data)
            count, num_bytes = count + len(tokens), num_bytes + size
            num_documents += sum(ends)
            advance(text.num_read)
        left_out = text.left_out.copy()
        if not count:
            reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.samples.items())
            raise DataError(
                f"There is no text{reasons and ': '}{reasons}.",
                where="; ".join(left_out.examples) or text.where,
                do="Check the files and options.",
            )
    left_out.total = num_documents + left_out.num_samples
    left_out.parts = {k: n for k, n in left_out.parts.items() if k not in opened} | repaired
    facts = dict(
        num_tokens=count,
        num_bytes=num_bytes,
        left_out=left_out.to_json(),
        dtype=dtype,
        source=text.where,
        sha256=digest.hexdigest(),
        mtime_ns=file.stat().st_mtime_ns,
        tokenizer=tokenizer.fingerprint,
    )
    with atomic(file.with_suffix(".json")) as beside:
        beside.write_text(json.dumps(facts), "utf-8")
    span = TokenSpan(file, dtype, 0, count)
    return Tokens((span,), num_bytes, left_out.num_samples, left_out, digest.hexdigest())


def _batches(text: Text, repaired: Counter[str]) -> Iterator[tuple[list[str], list[bool], int]]:
    """Yield pieces in batches, with whether each ends a document, and their UTF-8 bytes.

    Pieces that are changed are counted in ``repaired``.
    """
    texts, ends, num_bytes = list[str](), list[bool](), 0
    pieces = (piece for whole in text.pieces() for piece in bounded(*whole))
    for piece, last in pieces:
        encodable, size = _utf8(piece)
        if encodable is not piece:
            repaired[SURROGATES] += 1
        texts.append(encodable)
        ends.append(last)
        num_bytes += size
        if num_bytes + OVERHEAD * len(texts) >= BATCH:
            yield texts, ends, num_bytes
            texts, ends, num_bytes = [], [], 0
    if texts:
        yield texts, ends, num_bytes


def _utf8(text: str) -> tuple[str, int]:
    """Return a text with lone surrogates, which no tokenizer takes, as '?', and its UTF-8 bytes."""
    try:
        return text, len(text.encode())
    except UnicodeEncodeError:
        repaired = text.encode("utf-8", "replace")
        return repaired.decode(), len(repaired)


def _encode(tokenizer: Tokenizer, texts: Sequence[str], ends: Sequence[bool]) -> np.ndarray:
    """Return the tokens of a batch, int32, with the end mark after each document."""
    encoded = tokenizer.encode(texts)
    if len(encoded) != len(texts):
        raise _wrong(tokenizer, f"{len(encoded)} texts for {len(texts)}")
    eos = np.array([tokenizer.eos])
    arrays = [eos[:0]]
    for ids, last in zip(encoded, ends, strict=True):
        if len(ids):
            arrays.append(np.asarray(ids))
        if last:
            arrays.append(eos)
    tokens = np.concatenate(arrays, dtype=np.int32, casting="same_kind")
    low, high = int(tokens.min(initial=0)), int(tokens.max(initial=0))
    if low < 0 or high >= tokenizer.size:
        raise _wrong(tokenizer, f"the id {low if low < 0 else high}")
    return tokens


def _wrong(tokenizer: Tokenizer, result: str) -> ConfigError:
    return ConfigError(
        f"The tokenizer gives {result}, but has ids from 0 to {tokenizer.size - 1}.",
        where=f"tokenizer {tokenizer.fingerprint}",
        do="Its size must count added tokens too.",
    )
