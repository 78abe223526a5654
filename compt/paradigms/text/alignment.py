"""Let a teacher with another tokenizer read what the student reads, and align their positions.

Shapes: B texts, L tokens of the student in each, R rows of T tokens that the teacher reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compt.paradigms.text.token_bytes import token_bytes
from compt.paradigms.text.tokenizer import ByteTokenizer, LmTokenizer

Numbers = NDArray[np.int64]
STEP = 64
"""Rows of a teacher have multiples of so many tokens, so that compilers meet few lengths."""
TOKENS_A_BYTE = 0.25
"""Of a tokenizer that is not there when a plan is made."""
SAMPLE = """\
The river had been rising since Tuesday, and by the weekend it stood two metres above its usual
level. Most people in the village remembered 1987, when the bridge was lost; nobody wanted to see
that again. "We'll move the animals first," she said, "then the books, and whatever else fits."
def total(prices, rate=0.19):
    return sum(price * (1 + rate) for price in prices)
"""
"""English and a little code, by which plans reckon how many tokens a text has."""
_ESCAPED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Aligned:
    """What a teacher reads for a batch, and where in it the student's positions are.

    Attributes:
        rows: ids [R, T].
        index: into all positions [R * T], one for each of the student's, [B, L].
    """

    rows: Tensor
    index: Tensor


class Alignment:
    """Translate ids of a student into those of its teacher.

    A student's position is given the teacher's at the last token that ends no later in the text, so
    that the teacher has read no letter that the student has not. Ends of texts are tokens of both,
    and the teacher reads one before the first token: that is what a position gets where no token of
    the teacher has ended yet. A character that a block begins or ends within is not given to a
    teacher that reads characters. Texts with more tokens than the teacher's context are read in
    windows, each with an end of text before it, so that nothing is left out.

    How the teacher divides a word may depend on letters of it that the student has not read yet:
    the 't' of 'the' may be a token or a part of one. What it has read still ends before them.

    Args:
        student, teacher: tokenizers.
        context: tokens that the teacher reads at once.

    Raises:
        ConfigError: what text the tokens of one are is not known.
    """

    def __init__(self, student: LmTokenizer, teacher: LmTokenizer, context: int) -> None:
        self.student, self.teacher, self.context = student, teacher, context
        self._bytes = token_bytes(student.inner, "the student")
        self._widths = np.array([len(piece) for piece in self._bytes], dtype=np.int64)
        # An end of text takes a place of its own, or it would end where the last letter does.
        self._widths[student.eos] = 1
        theirs = token_bytes(teacher.inner, "the teacher")
        self._teacher_widths = np.array([len(piece) for piece in theirs], dtype=np.int64)

    def __call__(self, ids: Tensor) -> Aligned:
        """Return what the teacher reads for ids [B, L] of the student, on their device.

        It waits for the device, as ids are read on the host.
        """
        own = ids.cpu().numpy().astype(np.int64)
        sequences, places = self._sequences(own)
        length = row_length(max(len(sequence) for sequence in sequences), self.context)
        rows: list[Numbers] = []
        index = np.empty(own.shape, dtype=np.int64)
        for number, (sequence, place) in enumerate(zip(sequences, places, strict=True)):
            windows = self._windows(sequence, length)
            index[number] = len(rows) * length + _in_windows(place, length)
            rows.extend(windows)
        tensors = torch.from_numpy(np.stack(rows)), torch.from_numpy(index)
        return Aligned(*(tensor.to(ids.device, non_blocking=True) for tensor in tensors))

    def _sequences(self, ids: Numbers) -> tuple[list[Numbers], list[Numbers]]:
        """Return the teacher's tokens of each text, and the student's positions [L] in them."""
        cuts = [np.flatnonzero(row == self.student.eos) for row in ids]
        spans = [
            np.split(row, np.stack([cut, cut + 1], axis=1).reshape(-1))[::2]
            for row, cut in zip(ids, cuts, strict=True)
        ]
        texts = [[b"".join(map(self._bytes.__getitem__, s.tolist())) for s in row] for row in spans]
        encoded = iter(self._encoded([text for row in texts for text in row]))
        sequences, places = [], []
        for row, parts in zip(ids, texts, strict=True):
            tokens, ends = self._joined([(len(text), *next(encoded)) for text in parts])
            if row[0] == self.student.eos:  # it is the mark that would be put in front
                tokens, ends = tokens[1:], ends[1:]
            own_ends = np.cumsum(self._widths[row])
            sequences.append(tokens)
            places.append(np.searchsorted(ends, own_ends, side="right") - 1)
        return sequences, places

    def _joined(self, parts: Sequence[tuple[int, Numbers, Numbers]]) -> tuple[Numbers, Numbers]:
        """Return tokens and ends of texts of a block, each with an end of text before it."""
        tokens, ends, start = [], [], 0
        mark = np.array([self.teacher.eos], dtype=np.int64)
        for size, own_tokens, own_ends in parts:
            tokens += [mark, own_tokens]
            ends += [np.array([start], dtype=np.int64), own_ends + start]
            start += size + 1
        return np.concatenate(tokens), np.concatenate(ends)

    def _encoded(self, texts: Sequence[bytes]) -> list[tuple[Numbers, Numbers]]:
        """Return the teacher's tokens of texts, and where in its bytes each ends."""
        if isinstance(self.teacher, ByteTokenizer):
            return [
                (np.frombuffer(text, np.uint8).astype(np.int64), np.arange(1, len(text) + 1))
                for text in texts
            ]
        trimmed = [whole_characters(text) for text in texts]
        found = self.teacher.inner(
            [_ESCAPED.sub("\ufffd", text) for _, text in trimmed],
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
        return [
            self._with_ends(np.array(ids, dtype=np.int64), offsets, start, text)
            for (start, text), (ids, offsets) in zip(trimmed, pairs, strict=True)
        ]

    def _with_ends(
        self, ids: Numbers, offsets: Sequence[tuple[int, int]], start: int, text: str
    ) -> tuple[Numbers, Numbers]:
        sizes = char_bytes(text)
        ends = np.cumsum(self._teacher_widths[ids])
        # Offsets count characters, and some tokenizers leave spaces out of them. The tokens' own
        # bytes are better, where they are the text's.
        if not len(ids) or ends[-1] != sizes.sum() or _ESCAPED.search(text):
            chars = np.array([end for _, end in offsets], dtype=np.int64)
            ends = np.maximum.accumulate(np.concatenate([[0], np.cumsum(sizes)])[chars])
        return ids, ends + start

    def _windows(self, sequence: Numbers, length: int) -> list[Numbers]:
        """Return rows [T] of a text's tokens; those after the first begin with an end of text."""
        front = _front(length)
        starts = range(length, len(sequence), length - front)
        rows = [sequence[:length]]
        rows += [
            np.concatenate([[self.teacher.eos] * front, sequence[start : start + length - front]])
            for start in starts
        ]
        eos = self.teacher.eos
        return [np.pad(row, (0, length - len(row)), constant_values=eos) for row in rows]


def planned(
    batch_size: int, length: int, ratio: float, context: int, device: torch.device
) -> Aligned:
    """Return tensors of the shapes that are to be expected, without values that mean anything.

    Args:
        batch_size: B.
        length: L.
        ratio: tokens of the teacher for each of the student.
        context: tokens that the teacher reads at once.
        device: meta.
    """
    tokens = 1 + round(length * ratio)
    own = row_length(tokens, context)
    windows = 1 + max(0, -(-(tokens - own) // (own - _front(own))))
    rows = torch.zeros(batch_size * windows, own, dtype=torch.long, device=device)
    return Aligned(rows, torch.zeros(batch_size, length, dtype=torch.long, device=device))


def tokens_a_byte(tokenizer: LmTokenizer) -> float:
    """Return the tokens that a tokenizer makes of a byte of :data:`SAMPLE`."""
    return len(tokenizer.encode([SAMPLE])[0]) / len(SAMPLE.encode())


def row_length(tokens: int, context: int) -> int:
    """Return how long rows are that hold so many tokens, a multiple of 64 up to the context."""
    return min(context, -(-tokens // STEP) * STEP)


def whole_characters(text: bytes) -> tuple[int, str]:
    """Return bytes as characters, without the pieces of characters at begin and end.

    Other bytes that are no UTF-8 become one half of a surrogate pair each.

    Returns:
        Bytes that are left out at the beginning, and the characters.
    """
    start = 0
    while start < min(3, len(text)) and text[start] & 0xC0 == 0x80:
        start += 1
    end = len(text)
    for back in range(1, min(3, end - start) + 1):
        lead = text[end - back]
        if lead & 0xC0 != 0x80:
            if lead >= 0xC0 and back < 2 + (lead >= 0xE0) + (lead >= 0xF0):
                end -= back
            break
    return start, text[start:end].decode("utf-8", "surrogateescape")


def char_bytes(text: str) -> Numbers:
    """Return the bytes that each character was read from, as :func:`whole_characters` does."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    sizes[(codes >= 0xDC80) & (codes <= 0xDCFF)] = 1
    return sizes


def _front(length: int) -> int:
    """Return the marks in front of a window: one, where there is room for more."""
    return int(length > 1)


def _in_windows(places: Numbers, length: int) -> Numbers:
    """Return where places in a text are in its windows, one after the other."""
    front = _front(length)
    behind = places - length
    row, slot = np.divmod(np.maximum(behind, 0), length - front)
    return np.where(behind < 0, places, (1 + row) * length + front + slot)
