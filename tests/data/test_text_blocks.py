from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from compt.data.text import TokenBlocks, open_tokens, tokens as module
from compt.errors import ConfigError, DataError
from compt.interfaces import Tokens, TokenSpan

from .byte_tokenizer import ByteTokenizer, stream


def sequence(folder: Path, *lengths: int, dtype: str = "uint16") -> Tokens:
    """The numbers from 0 on, in files of these lengths."""
    spans, start = [], 0
    for i, length in enumerate(lengths):
        path = folder / f"{i}.bin"
        path.write_bytes(b"head" + np.arange(start, start + length, dtype=dtype).tobytes())
        spans.append(TokenSpan(path, dtype, 4, length))
        start += length
    return Tokens(tuple(spans), None)


@pytest.mark.parametrize("context", [1, 3, 7, 10, 99, 100])
@pytest.mark.parametrize("lengths", [(101,), (50, 1, 0, 49, 1)])
def test_every_token_but_the_first_is_predicted_once(
    tmp_path: Path, lengths: tuple[int, ...], context: int
) -> None:
    blocks = TokenBlocks(sequence(tmp_path, *lengths), context)
    assert (len(blocks), blocks.num_tokens) == (100 // context, 101)
    assert all(blocks[i]["tokens"].shape == (context + 1,) for i in range(len(blocks)))
    assert [int(token) for i in range(len(blocks)) for token in blocks[i]["tokens"][1:]] == list(
        range(1, len(blocks) * context + 1)
    )
    assert [int(blocks[i]["tokens"][0]) for i in range(len(blocks))] == list(
        range(0, len(blocks) * context, context)
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", ">u2", "int64", "uint64"])
def test_blocks_are_int64(tmp_path: Path, dtype: str) -> None:
    tokens = TokenBlocks(sequence(tmp_path, 9, dtype=dtype), 4)[-1]["tokens"]
    assert (tokens.dtype, tokens.tolist()) == (torch.int64, [4, 5, 6, 7, 8])


def test_indices_beyond_the_end(tmp_path: Path) -> None:
    blocks = TokenBlocks(sequence(tmp_path, 9), 4)
    for index in (2, -3):
        with pytest.raises(IndexError):
            blocks[index]


def test_workers_read_the_same(tmp_path: Path) -> None:
    blocks = TokenBlocks(sequence(tmp_path, 40, 61), 5)
    assert len(stream(blocks)) == 101
    loader = DataLoader(blocks, batch_size=4, num_workers=2, multiprocessing_context="fork")
    batches = [batch["tokens"] for batch in loader]
    assert torch.cat(batches)[:, 1:].flatten().tolist() == list(range(1, 101))


def test_pickle_leaves_the_files_behind(tmp_path: Path) -> None:
    blocks = TokenBlocks(sequence(tmp_path, 20_000), 5)
    assert int(blocks[10]["tokens"][0]) == 50
    state = pickle.dumps(blocks)
    assert len(state) < 2000
    assert pickle.loads(state)[10]["tokens"].tolist() == blocks[10]["tokens"].tolist()


def test_few_files_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    blocks = TokenBlocks(sequence(tmp_path, 5, 5, 5, 5), 19)
    assert blocks[0]["tokens"].tolist() == list(range(20))
    assert len(blocks._maps) == 2


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    blocks = TokenBlocks(sequence(tmp_path, 20), 5)
    (tmp_path / "0.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)removed or cut short.*0\.bin"):
        blocks[0]


def test_too_little_text_for_a_block(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ten bytes!")
    cfg = dict(type="text", val=tmp_path / "a.txt", cache_dir=tmp_path / "cache")
    assert len(open_tokens(cfg, "val", ByteTokenizer(), 10)) == 1
    with pytest.raises(
        DataError, match=r"(?s)'val' has 11 tokens; a block takes 12.*a\.txt.*shorter context"
    ):
        open_tokens(cfg, "val", ByteTokenizer(), 11)


@pytest.mark.parametrize("context", [0, 1.5, True, None])
def test_a_context_that_cannot_be(tmp_path: Path, context: object) -> None:
    with pytest.raises(ConfigError, match="context="):
        open_tokens(dict(type="text", val="a.txt"), "val", ByteTokenizer(), context)  # type: ignore[arg-type]
