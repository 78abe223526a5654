"""Tokenises the documents of a source once and keeps the tokens in a verified file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compt.data._cache import key_of, once, progress
from compt.data.text.files import Source
from compt.data.text.tokens import Span, Tokens
from compt.errors import ConfigError, DataError
from compt.files import atomic, sha256, sweep

FORMAT = 1
BATCH = 1 << 20
"""About how many bytes of text are tokenised at a time."""
OVERHEAD = 64
"""Bytes that a text takes beside its own."""


class Tokenizer(Protocol):
    """What tokenising needs of a tokenizer."""

    @property
    def size(self) -> int:
        """Number of token ids: each is from 0 to ``size - 1``."""

    @property
    def eos(self) -> int:
        """The id put after every document."""

    @property
    def fingerprint(self) -> str:
        """Changes when the tokenizer changes: part of the name of what is cached."""

    def encode(self, texts: Sequence[str]) -> Sequence[np.ndarray | Sequence[int]]:
        """The ids of each text, without special tokens."""


def tokenised(source: Source, tokenizer: Tokenizer, cache_dir: str | Path | None = None) -> Tokens:
    """Return the tokens of all documents, made now if the cache does not hold them undamaged.

    Memory does not grow with the text. Several processes may call this at once: one works, the
    others wait.

    Raises:
        ConfigError: the tokenizer gives ids that it should not.
        DataError: the text cannot be read or there is none, or the cache cannot be written.
    """
    files = [(file.name, file.size, file.stamp) for file in source.files]
    dtype = "uint16" if tokenizer.size <= 1 << 16 else "uint32"
    key = key_of(
        FORMAT,
        source.kind,
        source.options,
        files,
        tokenizer.fingerprint,
        tokenizer.size,
        tokenizer.eos,
    )
    return once(
        f"tokens/{source.kind}-{key}.bin",
        cache_dir,
        find=lambda file: _intact(file, dtype),
        make=lambda file: _tokenise(source, tokenizer, file, dtype),
        megabytes=source.total * np.dtype(dtype).itemsize / 1e6,
    )


def _intact(file: Path, dtype: str) -> Tokens | None:
    """What the cache holds, None if that is nothing or damaged; read through only if its date is
    not as written.
    """
    try:
        facts: dict[str, Any] = json.loads(file.with_suffix(".json").read_text("utf-8"))
        stat, count = file.stat(), int(facts["num_tokens"])
        if stat.st_size != count * np.dtype(dtype).itemsize:
            return None
        if stat.st_mtime_ns != facts["mtime_ns"] and sha256(file) != facts["sha256"]:
            return None
        return Tokens(
            (Span(file, dtype, 0, count),), int(facts["num_bytes"]), int(facts["skipped"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tokenise(source: Source, tokenizer: Tokenizer, file: Path, dtype: str) -> Tokens:
    """Write tokens and facts; the caller holds the lock."""
    sweep(file.parent, f".{file.stem}*.tmp")
    digest, count, num_bytes = hashlib.sha256(), 0, 0
    with (
        atomic(file) as part,
        part.open("wb") as out,
        progress("tokenising", source.total) as advance,
    ):
        for texts, ends, size in _batches(source):
            tokens = _encode(tokenizer, texts, ends).astype(dtype)
            out.write(tokens.data)
            digest.update(tokens.data)
            count, num_bytes = count + len(tokens), num_bytes + size
            advance(source.done)
        if not count:
            none = f": {source.skipped} rows or files have none" if source.skipped else ""
            raise DataError(
                f"There is no text{none}.", where=source.where, do="Check the files and options."
            )
    facts = dict(
        num_tokens=count,
        num_bytes=num_bytes,
        skipped=source.skipped,
        dtype=dtype,
        source=source.where,
    )
    facts |= dict(
        sha256=digest.hexdigest(), mtime_ns=file.stat().st_mtime_ns, tokenizer=tokenizer.fingerprint
    )
    with atomic(file.with_suffix(".json")) as part:
        part.write_text(json.dumps(facts), "utf-8")
    return Tokens((Span(file, dtype, 0, count),), num_bytes, source.skipped)


def _batches(source: Source) -> Iterator[tuple[list[str], list[bool], int]]:
    """Pieces of documents in batches: texts, whether each ends a document, and their UTF-8
    bytes.
    """
    texts, ends, num_bytes = list[str](), list[bool](), 0
    for piece in source.pieces():
        text, size = _utf8(piece.text)
        texts.append(text)
        ends.append(piece.last)
        num_bytes += size
        if num_bytes + OVERHEAD * len(texts) >= BATCH:
            yield texts, ends, num_bytes
            texts, ends, num_bytes = [], [], 0
    if texts:
        yield texts, ends, num_bytes


def _utf8(text: str) -> tuple[str, int]:
    """The text with lone surrogates, which no tokenizer takes, as '?', and its bytes in UTF-8."""
    try:
        return text, len(text.encode())
    except UnicodeEncodeError:
        repaired = text.encode("utf-8", "replace")
        return repaired.decode(), len(repaired)


def _encode(tokenizer: Tokenizer, texts: Sequence[str], ends: Sequence[bool]) -> np.ndarray:
    """The tokens of a batch, int32, with the end mark after each document."""
    encoded = tokenizer.encode(texts)
    if len(encoded) != len(texts):
        raise _wrong(tokenizer, f"{len(encoded)} texts for {len(texts)}")
    eos = np.array([tokenizer.eos])
    parts = [eos[:0]]
    for ids, last in zip(encoded, ends, strict=True):
        if len(ids):
            parts.append(np.asarray(ids))
        if last:
            parts.append(eos)
    tokens = np.concatenate(parts, dtype=np.int32, casting="same_kind")
    low, high = int(tokens.min(initial=0)), int(tokens.max(initial=0))
    if low < 0 or high >= tokenizer.size:
        raise _wrong(tokenizer, f"the id {low if low < 0 else high}")
    return tokens


def _wrong(tokenizer: Tokenizer, what: str) -> ConfigError:
    return ConfigError(
        f"The tokenizer gives {what}, but has ids from 0 to {tokenizer.size - 1}.",
        where=f"tokenizer {tokenizer.fingerprint}",
        do="Its size must count added tokens too.",
    )
