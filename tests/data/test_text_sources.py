"""Every kind of file gives the same tokens; which files count."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from compt.data.text import _pieces, open_tokens

from .byte_tokenizer import ByteTokenizer, expected, tokens_of

DOCUMENTS = (
    "One line.\nAnd another\n",
    "élan, 漢字 and 🙂",
    "word " * 20_000,
    "x" * 70_000 + "\n" + "y" * 140_000,
    "end",
)
SKIPPED = ("", " \n ")


def write(folder: Path, kind: str, documents: tuple[str, ...]) -> dict:
    """Write documents; return the config that reads them."""
    if kind == "text":
        for i, document in enumerate(documents):
            (folder / f"{i:03d}.txt").write_text(document, "utf-8")
        return dict(type="text", val=folder)
    if kind == "separated":
        (folder / "all.txt").write_text("<|end|>".join(documents), "utf-8")
        return dict(type="text", val=folder / "all.txt", separator="<|end|>")
    if kind == "jsonl":
        lines = "\n".join(json.dumps(dict(id=i, text=text)) for i, text in enumerate(documents))
        (folder / "all.jsonl").write_text(lines)
        return dict(type="jsonl", val=str(folder / "all.jsonl"))
    columns = dict(id=list(range(len(documents))), text=list(documents))
    if kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(columns), folder / "all.parquet", row_group_size=2)
        return dict(type="parquet", val=folder / "all.parquet")
    pytest.importorskip("datasets").Dataset.from_dict(columns).save_to_disk(folder / "all")
    return dict(type="datasets", val=folder / "all")


@pytest.mark.parametrize("kind", ["text", "separated", "jsonl", "parquet", "datasets"])
def test_every_source_gives_the_same_tokens(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    cfg = write(tmp_path / "data", kind, (*DOCUMENTS[:2], *SKIPPED, *DOCUMENTS[2:]))
    tokenizer = ByteTokenizer()
    blocks = open_tokens({**cfg, "cache_dir": tmp_path, "num_samples": 5}, "val", tokenizer, 1)
    assert tokens_of(tmp_path, **cfg) == expected(*DOCUMENTS)
    assert blocks.num_tokens == len(expected(*DOCUMENTS))
    assert blocks.num_bytes == len("".join(DOCUMENTS).encode())
    assert max(map(len, tokenizer.texts)) <= _pieces.PIECE
    assert tokenizer.texts == [
        piece.text for document in DOCUMENTS for piece in _pieces.pieces([document])
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "datasets"])
def test_rows_without_text_are_counted(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    cfg = write(tmp_path / "data", kind, ("a", *SKIPPED, "b", None))  # type: ignore[arg-type]
    for _ in range(2):
        blocks = open_tokens({**cfg, "cache_dir": tmp_path}, "val", ByteTokenizer(), 1)
        assert (blocks.skipped, blocks.num_tokens) == (3, 4)


def test_pieces_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pieces, "PIECE", 8)
    text = (
        "ab\ncdefgh\n\nijklmnopqrstu vwx yz0\n\n\n\n \n\n12345678\n\n123456789\n1\n\n        \n\n"
    )
    whole = [piece for document in text.split("\n\n") for piece in _pieces.pieces([document])]
    assert [piece.text for piece in whole if not piece.last] == [
        "ab\n",
        "ijklmnop",
        "qrstu",
        "12345678",
    ]
    assert "".join(piece.text for piece in whole) == "".join(
        part for part in text.split("\n\n") if part.strip()
    )
    for size in range(1, len(text)):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert list(_pieces.pieces(chunks, "\n\n")) == whole


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_compressed_files(tmp_path: Path, kind: str, ending: str, compress: object) -> None:
    content = "one\ntwo" if kind == "text" else '{"text": "one\\ntwo"}\n'
    (tmp_path / f"a.{'txt' if kind == 'text' else kind}.{ending}").write_bytes(
        compress(content.encode())
    )  # type: ignore[operator]
    assert tokens_of(tmp_path / "cache", type=kind, val=tmp_path) == expected("one\ntwo")


def test_zstandard(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"one"))
    assert tokens_of(tmp_path / "cache", type="text", val=tmp_path) == expected("one")


def test_which_files_count(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in (
        "b.txt",
        "a.txt",
        "c.md",
        "deep/er/d.txt",
        "deep/.git/e.txt",
        ".f.txt",
        "g[1].txt",
    ):
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name[:2].strip("."))

    def order(paths: object, **options: str) -> str:
        tokens = tokens_of(tmp_path / "cache", type="text", val=paths, **options)
        return "".join(chr(token) for token in tokens if token < 256)

    assert order(data) == order([str(data)]) == order(f"{data}/") == "abdg["
    assert order(data, pattern="*.md") == "c"
    assert order([data / "c.md", data / "a.txt", data / "a.txt"]) == "caa"
    assert order(f"{data}/[ab].txt") == "ab"
    assert order(data / "g[1].txt") == "g["
    assert order(f"{data}/**/*.txt") == "abdg["
    assert order(f"{data}/dee*") == "d"
    assert order(f"file://{data}/a.txt") == "a"


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("blobs/7", "corpus/b.txt", "folder.txt/c.txt"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name[-1])
    (data / "corpus" / "a.txt").symlink_to("../blobs/7")
    (data / "corpus" / "again.txt").symlink_to("../folder.txt")
    for path in (data / "corpus", f"{data}/corpus/*.txt"):
        cfg = dict(type="text", val=path)
        (data / "blobs" / "7").write_text("7")
        assert tokens_of(tmp_path / "cache", **cfg) == expected("7", "t")
        (data / "blobs" / "7").write_text("8")
        assert tokens_of(tmp_path / "cache", **cfg) == expected("8", "t")


def test_a_relative_path_and_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("a.txt", "*.txt", ".", "~/a.txt", Path("~/a.txt")):
        assert tokens_of(tmp_path / "cache", type="text", val=path) == expected("one")


def test_other_file_systems(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe(
        {
            "/corpus/a.jsonl": b'{"text": "one"}',
            "/corpus/b.jsonl.gz": gzip.compress(b'{"text": "two"}'),
        }
    )
    for path in (
        "memory://corpus",
        "memory://corpus/*",
        ["memory://corpus/a.jsonl", "memory://corpus/b.jsonl.gz"],
    ):
        assert tokens_of(tmp_path, type="jsonl", val=path) == expected("one", "two")


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\r")
    assert tokens_of(tmp_path / "cache", type="text", val=tmp_path, separator="\n\n") == expected(
        "one", "two\n"
    )


def test_lone_surrogates_become_question_marks(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b \\ud83d\\ude42"}')
    assert tokens_of(tmp_path / "cache", type="jsonl", val=tmp_path) == expected("a?b 🙂")


def test_rows_below_the_first_may_lack_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "a"}\n\n{"id": 2}\n{"body": 3}\n{"body": "b"}\n')
    assert tokens_of(tmp_path / "cache", type="jsonl", val=tmp_path, key="body") == expected(
        "a", "b"
    )


def test_parts_of_a_dataset_dict(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {
        name: datasets.Dataset.from_dict(dict(body=[name, "x"])) for name in ("train", "validation")
    }
    parts["train"] = parts["train"].select([1, 0])
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    cfg = dict(
        type="datasets",
        train=tmp_path / "both",
        val=str(tmp_path / "both" / "validation"),
        key="body",
    )
    assert tokens_of(tmp_path / "cache", "train", **cfg) == expected("x", "train")
    assert tokens_of(tmp_path / "cache", "val", **cfg) == expected("validation", "x")
