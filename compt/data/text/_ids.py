"""Looks through tokens made elsewhere, once, for ids that a tokenizer does not have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from compt.data._cache import key_of, once, progress
from compt.data._storage import is_remote
from compt.data.text.tokens import mapped, wrong_id
from compt.errors import DataError
from compt.interfaces import Tokens, TokenSpan
from compt.writing import atomic

SCAN = 1 << 22
"""Tokens looked at a time."""


def check_ids(tokens: Tokens, size: int, cache_dir: str | Path | None = None) -> None:
    """Raise DataError unless each token is from 0 to ``size - 1``.

    What was seen of a file is remembered until it changes. Files on servers are not looked through.

    Raises:
        DataError: also where a file is gone, or what was seen cannot be remembered.
    """
    spans = [span for span in tokens.spans if not is_remote(span.file)]
    if not spans:
        return
    key = key_of([(span.dtype, span.offset) for span in spans], [_stamp(span) for span in spans])
    ranges = once(
        f"tokens/ids-{key}.json",
        cache_dir,
        find=lambda file: _remembered(file, len(spans)),
        make=lambda file: _scan(file, spans),
        megabytes=1,
    )
    for span, (low, high) in zip(spans, ranges, strict=True):
        if low < 0 or high >= size:
            raise wrong_id(span, low if low < 0 else high, size)


def _stamp(span: TokenSpan) -> tuple[str, int, str]:
    try:
        stat = Path(span.file).stat()
    except OSError as error:
        raise DataError(
            f"The file of tokens cannot be read: {error.strerror}.", where=str(span.file)
        ) from error
    return str(span.file), stat.st_size, str(stat.st_mtime)


def _remembered(file: Path, num_spans: int) -> list[tuple[int, int]] | None:
    """Return what a scan has left, None if that is nothing or damaged."""
    try:
        ranges = [(int(low), int(high)) for low, high in json.loads(file.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    return ranges if len(ranges) == num_spans else None


def _scan(file: Path, spans: Sequence[TokenSpan]) -> list[tuple[int, int]]:
    """Find the least and largest token of each file, and write them down as JSON."""
    ranges, done = [], 0
    with progress("checking tokens", sum(span.count for span in spans)) as advance:
        for span in spans:
            low = high = 0
            for start in range(0, span.count, SCAN):
                chunk = mapped(span)[start : start + SCAN]
                low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
                advance(done + start)
            done += span.count
            ranges.append((low, high))
    with atomic(file) as beside:
        beside.write_text(json.dumps(ranges), "utf-8")
    return ranges
