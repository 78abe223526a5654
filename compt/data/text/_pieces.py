"""Documents of any length in pieces of bounded length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PIECE = 1 << 16
"""Most characters of a piece."""


class Piece(NamedTuple):
    """A part of a document, and whether the document ends with it."""

    text: str
    last: bool


def bounded(text: str, last: bool) -> Iterator[Piece]:
    """Cut a piece of any length into pieces of bounded length."""
    parts = _parts(text, PIECE)
    end = next(parts)
    for following in parts:
        yield Piece(end, last=False)
        end = following
    yield Piece(end, last)


def pieces(chunks: Iterable[str], separator: str = "") -> Iterator[Piece]:
    """Cut a stream of text into documents at a separator, which is dropped, and these into pieces.

    A document longer than ``PIECE`` characters is cut after the last line end that leaves a piece
    short enough, else before the last space, else anywhere. Where ``chunks`` are cut makes no
    difference. Documents of white space only, up to the length of a piece, are left out.
    """
    rest, begun = "", False
    for chunk in chunks:
        *documents, rest = (rest + chunk).split(separator) if separator else [rest + chunk]
        for document in documents:
            yield from _ended(document, begun)
            begun = False
        *parts, rest = _parts(rest, PIECE + len(separator))
        for text in parts:
            yield Piece(text, last=False)
            begun = True
    yield from _ended(rest, begun)


def _ended(text: str, begun: bool) -> Iterator[Piece]:
    """Yield the pieces of a document, or of its end where it has begun before."""
    if begun or len(text) > PIECE or text.strip():
        yield from bounded(text, last=True)


def _parts(text: str, limit: int) -> Iterator[str]:
    """Cut off pieces until at most ``limit`` characters are left, which come last."""
    start = 0
    while len(text) - start > limit:
        stop = start + PIECE
        end = text.rfind("\n", start, stop) + 1 or text.rfind(" ", start + 1, stop)
        end = end if end > start else stop
        yield text[start:end]
        start = end
    yield text[start:]
