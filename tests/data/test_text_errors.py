"""Errors of text say what is wrong, where, and what to do."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from compt.data import splits
from compt.data.text import open_tokens
from compt.errors import ConfigError, DataError

from .byte_tokenizer import ByteTokenizer


def fails(folder: Path, **cfg) -> str:
    """The message of the DataError that opening 'val' raises."""
    with pytest.raises(DataError) as caught:
        open_tokens({**cfg, "cache_dir": folder / "cache"}, "val", ByteTokenizer(), 1)
    assert caught.value.where or "pip install" in caught.value.do
    assert caught.value.do
    return str(caught.value)


def test_held_out_splits() -> None:
    assert splits(dict(type="stdlib", tests=True, num_samples=9)) == ("val",)
    assert splits(dict(type="text", night="n", train="a", pattern="*", day=["d"])) == (
        "night",
        "day",
    )


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(), r"(?s)no type.*stdlib, text"),
        (dict(type="jsnl"), "Did you mean 'jsonl'"),
        (dict(type="stdlib", test=True), "Did you mean 'tests'"),
        (dict(type="stdlib", train="a.txt"), r"takes no argument 'train'"),
        (dict(type="text", train="a.txt", seperator="\n"), "Did you mean 'separator'"),
        (dict(type="text", train="a.txt", key=3), r"(?s)no option 'key'.*any other key is a split"),
        (dict(type="text", train="a.txt", val=[]), "no option 'val'"),
        (dict(type="tokens", train="a.bin", num_sample=3), "Did you mean 'num_samples'"),
    ],
)
def test_faults_of_the_config(cfg: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        splits(cfg)
    assert "do:" in str(caught.value) or "It takes: " in str(caught.value)


def test_a_split_without_files() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)no split 'val'.*Splits: train\. .*data=dict\(\.\.\., val=\.\.\.\)"
    ):
        open_tokens(dict(type="text", train="a.txt"), "val", ByteTokenizer(), 1)


@pytest.mark.parametrize("options", [dict(separator=""), dict(separator=3), dict(pattern=None)])
def test_options_that_are_no_text(tmp_path: Path, options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        open_tokens(dict(type="text", val=tmp_path, **options), "val", ByteTokenizer(), 1)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "datasets"])
def test_a_key_that_is_no_text(tmp_path: Path, kind: str) -> None:
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / f"a.{kind}").write_text("{}")
    with pytest.raises(ConfigError, match="key: 7 is"):
        open_tokens(dict(type=kind, val=tmp_path, key=7), "val", ByteTokenizer(), 1)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text", "tokens"])
def test_missing_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "corpus.md").write_text("x")
    message = fails(tmp_path, type=kind, val=tmp_path / "corpus.mt")
    assert "no file 'corpus.mt'. Did you mean 'corpus.md'" in message
    assert str(tmp_path) in message
    assert "no file '*.none'" in fails(tmp_path, type=kind, val=f"{tmp_path}/*.none")
    assert "no file 'x'" in fails(tmp_path, type=kind, val=tmp_path / "deep" / "er" / "x")
    assert "has no files '*" in fails(tmp_path, type=kind, val=[tmp_path])


def test_unknown_file_systems(tmp_path: Path) -> None:
    assert "bogus://a" in fails(tmp_path, type="text", val="bogus://a")


def test_nothing_but_blanks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\n \n")
    assert "There is no text: 1 without text." in fails(
        tmp_path, type="text", val=tmp_path, separator="\n\n"
    )
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": 3}\n')
    assert "no text: 1 without text, 1 whose text is no string." in fails(
        tmp_path, type="jsonl", val=tmp_path
    )
    (tmp_path / "a.jsonl").write_text("")
    assert "There is no text." in fails(tmp_path, type="jsonl", val=tmp_path)
    assert [
        file.suffix for file in (tmp_path / "cache" / "tokens").iterdir() if file.suffix != ".lock"
    ] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": cut', "no JSON: Expecting value"),
        ("[1]", "no JSON object"),
        ('"text"', "no JSON object"),
    ],
)
def test_lines_that_are_no_rows(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n\n{line}\n')
    error = fails(tmp_path, type="jsonl", val=tmp_path)
    assert message in error
    assert "a.jsonl, line 3" in error


def test_missing_keys(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "txt": "one"}\n')
    error = fails(tmp_path, type="jsonl", val=tmp_path)
    assert "no 'text'. Did you mean 'txt'" in error
    assert "line 1" in error
    assert "id, txt" in error


def test_missing_columns(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(dict(txt=["one"])), tmp_path / "a.parquet")
    assert "no 'text'. Did you mean 'txt'" in fails(tmp_path, type="parquet", val=tmp_path)
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict(dict(txt=["one"])).save_to_disk(tmp_path / "saved")
    assert "no 'text'. Did you mean 'txt'" in fails(
        tmp_path, type="datasets", val=tmp_path / "saved"
    )


def test_folders_that_are_no_such_dataset(tmp_path: Path) -> None:
    assert "no saved dataset" in fails(tmp_path, type="datasets", val=tmp_path)
    assert "no saved dataset" in fails(tmp_path, type="datasets", val=tmp_path / "none")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "vali"]}')
    error = fails(tmp_path, type="datasets", val=tmp_path)
    assert "no part 'val'. Did you mean 'vali'" in error
    assert f"{tmp_path}/vali" in error


def test_text_that_cannot_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    error = fails(tmp_path, type="text", val=tmp_path)
    assert "not UTF-8 text" in error
    assert "0xe9" in error
    assert "a.txt" in error
    assert "not UTF-8 text" in fails(tmp_path, type="jsonl", val=tmp_path / "a.txt")


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet", "datasets"])
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    whole = gzip.compress(b'{"text": "one"}\n' * 999)
    name = {
        "text": "a.txt.gz",
        "jsonl": "a.jsonl.gz",
        "parquet": "a.parquet",
        "datasets": "state.json",
    }[kind]
    for content in (whole[: len(whole) // 2], b"no such thing"):
        (tmp_path / name).write_bytes(content)
        error = fails(tmp_path, type=kind, val=tmp_path)
        assert "cannot be read" in error
        assert str(tmp_path) in error


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr("fsspec.utils.infer_compression", lambda name: None)
        assert "pip install zstandard" in fails(tmp_path, type="text", val=tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"x")
    (tmp_path / "state.json").write_bytes(b"{}")
    for module, kind in (
        ("pyarrow.parquet", "parquet"),
        ("datasets", "datasets"),
        ("fsspec.core", "text"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        assert 'pip install "compt[lm]"' in fails(tmp_path, type=kind, val=tmp_path)


def test_opening_needs_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, compt.data.text; "
        "print([m for m in ('fsspec', 'pyarrow', 'datasets') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )
