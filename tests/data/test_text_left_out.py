"""Documents, rows and files that are left out are counted by reason, from the cache too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compt.data.text import TokenBlocks, open_tokens
from compt.data.text.tokens import NO_BLOCK
from compt.errors import DataError
from compt.interfaces import LeftOut, Tokens, TokenSpan, fingerprint

from .byte_tokenizer import ByteTokenizer

GOOD = [{"text": f"page {i}"} for i in range(20)]


def opened(folder: Path, kind: str, **options: Any) -> TokenBlocks:
    cfg = dict(type=kind, val=folder / "data", cache_dir=folder / "cache", **options)
    return open_tokens(cfg, "val", ByteTokenizer(), 4)


def left_out(folder: Path, kind: str, **options: Any) -> LeftOut:
    """What is left out, the same from the cache; without the tokens that fill no block."""
    first, second = (opened(folder, kind, **options).left_out for _ in range(2))
    assert first == second
    first.parts.pop(NO_BLOCK, None)
    return first


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"content": "x"}, "without the key 'text'"),
        ({"text": None}, "whose text is null"),
        ({"text": ["a"]}, "whose text is no string"),
        ({"text": 5}, "whose text is no string"),
        ({"text": " \n"}, "without text"),
    ],
)
def test_rows_of_json_without_text(data: Path, row: dict, reason: str) -> None:
    (data / "a.jsonl").write_text("\n".join(map(json.dumps, [*GOOD, row, row])))
    lacks = left_out(data.parent, "jsonl")
    assert (lacks.total, lacks.samples, lacks.parts) == (22, {reason: 2}, {})
    assert lacks.examples[0] == f"{data / 'a.jsonl'}, line 21 ({reason})"
    with pytest.raises(DataError, match="2 of 22 samples of 'val'"):
        lacks.check("val")
    left_out(data.parent, "jsonl", max_broken=0.1).check("val")


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_columns_with_holes(data: Path, kind: str) -> None:
    texts = ["one", None, "", "two", None]
    if kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"text": texts}), data / "a.parquet")
    else:
        pytest.importorskip("datasets").Dataset.from_dict({"text": texts}).save_to_disk(data)
    lacks = left_out(data.parent, kind)
    assert (lacks.total, lacks.samples) == (5, {"whose text is null": 2, "without text": 1})


def test_blank_lines_and_other_files_are_said(data: Path) -> None:
    (data / "a.jsonl").write_text("\n\n".join(map(json.dumps, GOOD)))
    (data / "b.json").write_text(json.dumps(GOOD))
    lacks = left_out(data.parent, "jsonl")
    assert lacks.samples == {}
    assert lacks.parts == {"blank lines": 19, "files in folders whose names are not '*.jsonl'": 1}
    (data / "c.json").write_text("")  # what is in the cache does not know of it
    other = opened(data.parent, "jsonl").left_out.parts
    assert other["files in folders whose names are not '*.jsonl'"] == 2


def test_files_that_are_named_twice_are_said(data: Path) -> None:
    (data / "a.txt").write_text("one two")
    cfg = dict(type="text", val=[data / "a.txt", data], cache_dir=data.parent / "cache")
    blocks = open_tokens(cfg, "val", ByteTokenizer(), 1)
    assert blocks.left_out.parts == {"files that are named, and read, more than once": 1}


def test_characters_that_no_tokenizer_takes_are_said(data: Path) -> None:
    (data / "a.jsonl").write_text('{"text": "\\ud800 and more"}')
    assert left_out(data.parent, "jsonl").parts == {
        "pieces with characters that UTF-8 lacks, which became '?'": 1
    }


def test_files_without_text_and_repeated_separators(data: Path) -> None:
    (data / "a.txt").write_text("one\n\n\n\n \n\ntwo\n\n")
    assert left_out(data.parent, "text", separator="\n\n") == LeftOut(2)
    (data / "b.txt").write_text("")
    lacks = left_out(data.parent, "text")
    assert (lacks.total, lacks.samples) == (2, {"without text": 1})


def test_a_separator_that_does_not_occur_is_said(data: Path) -> None:
    (data / "a.txt").write_text("one<|end|>two")
    assert left_out(data.parent, "text", separator="<end>").parts == {
        "files that the separator does not divide": 1
    }
    assert left_out(data.parent, "text", separator="<|end|>").parts == {}


def test_tokens_that_fill_no_block_are_said(data: Path) -> None:
    np.arange(40, dtype="uint16").tofile(data / "a.bin")
    (data / "b.npy").write_text("not by this pattern")
    lacks = opened(data.parent, "tokens").left_out
    assert lacks.parts == {NO_BLOCK: 3, "files in folders whose names are not '*.bin'": 1}
    assert fingerprint(opened(data.parent, "tokens"))["tokens"] == 40


def test_fingerprints_of_tokens(data: Path) -> None:
    (data / "a.txt").write_text("one two three")
    first = fingerprint(opened(data.parent, "text"))
    (data / "a.txt").write_text("one two thrEe")  # as many bytes
    second = fingerprint(opened(data.parent, "text"))
    assert [name for name in first if first[name] != second[name]] == ["content"]
    np.arange(20, dtype="uint16").tofile(data / "a.bin")
    tokens = fingerprint(opened(data.parent, "tokens"))
    np.arange(20, dtype="uint16")[::-1].tofile(data / "a.bin")
    assert fingerprint(opened(data.parent, "tokens"))["content"] != tokens["content"]


def test_tokens_of_sources_that_only_count(tmp_path: Path) -> None:
    np.arange(9, dtype="uint16").tofile(tmp_path / "a.bin")
    span = TokenSpan(tmp_path / "a.bin", "uint16", 0, 9)
    blocks = TokenBlocks(Tokens((span,), skipped=2), 4)
    assert blocks.left_out.samples == {"without text": 2}
    assert blocks.fingerprint["content"]
