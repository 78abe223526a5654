from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from compt.data.text import open_tokens
from compt.data.text.stdlib import Stdlib, split_of
from compt.errors import ConfigError, DataError

from .byte_tokenizer import ByteTokenizer, expected, tokens_of

ROOT = Path(sysconfig.get_path("stdlib"))


def test_the_splits_share_no_file() -> None:
    train, val = (Stdlib().open(split) for split in Stdlib.splits)
    names = {file.name for file in train.files} | {file.name for file in val.files}
    assert len(names) == len(train.files) + len(val.files)
    assert 0.95 < len(train.files) / len(names) < 0.98
    assert 0.95 < train.num_bytes / (train.num_bytes + val.num_bytes) < 0.99
    assert [file.name for file in val.files] == sorted(file.name for file in val.files)


def test_nothing_but_the_library() -> None:
    names = [Path(file.name).relative_to(ROOT).as_posix() for file in Stdlib().open("train").files]
    assert {"abc.py", "json/decoder.py"} <= set(names)
    assert not [name for name in names if "site-packages" in name or "__pycache__" in name]


def test_the_split_of_a_file_stays() -> None:
    assert [split_of(path) for path in ("abc.py", "ast.py", "json/decoder.py")] == [
        "train",
        "val",
        "train",
    ]


def test_val_is_read_file_by_file(tmp_path: Path) -> None:
    cfg = dict(type="stdlib", tests=False, cache_dir=tmp_path)
    blocks = open_tokens(cfg, "val", ByteTokenizer(), 1)
    source = Stdlib(tests=False).open("val")
    texts = [Path(file.name).read_text("utf-8") for file in source.files]
    texts = [text for text in texts if text.strip()]
    assert blocks.num_tokens == len(expected(*texts))
    assert blocks.num_bytes == len("".join(texts).encode())
    assert tokens_of(tmp_path, **cfg) == expected(*texts)


def library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder / "lib"))
    (folder / "lib" / "test").mkdir(parents=True)
    for i in range(200):
        (folder / "lib" / f"m{i}.py").write_text(f"x = {i}\n")
    return folder / "lib"


def test_what_cannot_be_decoded_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = library(tmp_path, monkeypatch)
    for i in range(10):
        (root / "test" / f"bad{i}.py").write_bytes(b"\xff")
    cfg = dict(type="stdlib", cache_dir=tmp_path / "cache")
    counts = [open_tokens(cfg, split, ByteTokenizer(), 1).skipped for split in ("train", "val")]
    assert sum(counts) == 10
    assert open_tokens({**cfg, "tests": False}, "train", ByteTokenizer(), 1).skipped == 0


def test_a_python_without_source_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(DataError, match=r"(?s)not on this machine.*python311\.zip.*type='text'"):
        Stdlib().open("train")


def test_its_splits_and_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)no split 'vla'. Did you mean 'val'.*train, val"):
        open_tokens(dict(type="stdlib"), "vla", ByteTokenizer(), 1)
    with pytest.raises(ConfigError, match="tests: 'no' is"):
        open_tokens(dict(type="stdlib", tests="no"), "val", ByteTokenizer(), 1)
