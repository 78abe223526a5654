"""A tokenizer without dependencies: one token a byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compt.data.text import TokenBlocks, open_tokens

EOS = 256


class ByteTokenizer:
    """Ids 0 to 255 are bytes, 256 the end mark; notes the texts it is given."""

    eos = EOS

    def __init__(self, size: int = 257, fingerprint: str = "bytes") -> None:
        self.size, self.fingerprint = size, fingerprint
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One uint8 array a text."""
        self.texts += texts
        return [np.frombuffer(text.encode(), np.uint8) for text in texts]


def stream(blocks: TokenBlocks) -> list[int]:
    """All tokens of blocks, each once."""
    return [int(blocks[0]["tokens"][0])] + [int(t) for block in blocks for t in block["tokens"][1:]]


def tokens_of(cache: Path, split: str = "val", **cfg) -> list[int]:
    """All tokens of a split."""
    cfg |= {"cache_dir": cache}
    count = open_tokens(cfg, split, ByteTokenizer(), 1).num_tokens
    return open_tokens(cfg, split, ByteTokenizer(), count - 1)[0]["tokens"].tolist()


def expected(*documents: str) -> list[int]:
    """The tokens of documents."""
    return [token for document in documents for token in [*document.encode(), EOS]]
