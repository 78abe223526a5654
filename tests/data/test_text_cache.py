"""Text is tokenised once, in little memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from compt.data.text import open_tokens
from compt.errors import ConfigError, DataError

from .byte_tokenizer import ByteTokenizer, expected, stream


@pytest.fixture
def cfg(tmp_path: Path) -> dict:
    """One document, in a config with a cache of its own."""
    (tmp_path / "a.txt").write_text("some text")
    return dict(type="text", val=tmp_path / "a.txt", cache_dir=tmp_path / "cache")


def tokenised(cfg: dict, **tokenizer) -> list[str]:
    """The texts that opening a split tokenises."""
    bytes_ = ByteTokenizer(**tokenizer)
    open_tokens(cfg, "val", bytes_, 2)
    return bytes_.texts


def only(folder: Path, ending: str) -> Path:
    (file,) = folder.glob(f"tokens/*{ending}")
    return file


def test_a_second_time_nothing_is_tokenised(cfg: dict) -> None:
    assert tokenised(cfg) == ["some text"]
    assert tokenised(cfg) == []
    assert tokenised({**cfg, "num_samples": 3}) == []
    facts = json.loads(only(cfg["cache_dir"], ".json").read_text())
    assert (facts["num_tokens"], facts["num_bytes"], facts["dtype"]) == (10, 9, "uint16")
    assert only(cfg["cache_dir"], ".bin").stat().st_size == 20


def test_what_changes_is_tokenised_anew(cfg: dict) -> None:
    tokenised(cfg)
    assert tokenised({**cfg, "separator": " "}) == ["some", "text"]
    assert tokenised(cfg, fingerprint="other") == ["some text"]
    assert tokenised(cfg, size=300) == ["some text"]
    cfg["val"].write_text("new text")
    assert tokenised(cfg) == ["new text"]
    os.utime(cfg["val"], ns=(1, 1))
    assert tokenised(cfg) == ["new text"]
    assert tokenised(cfg) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "facts", "no facts", "no tokens"])
def test_a_damaged_cache_is_redone(cfg: dict, damage: str) -> None:
    tokenised(cfg)
    file, facts = only(cfg["cache_dir"], ".bin"), only(cfg["cache_dir"], ".json")
    good = file.read_bytes()
    if damage == "flip":
        file.write_bytes(good[:-1] + b"\x07")
    elif damage == "cut":
        file.write_bytes(good[:-2])
    elif damage == "facts":
        facts.write_text(facts.read_text()[:-9])
    else:
        (facts if damage == "no facts" else file).unlink()
    assert tokenised(cfg) == ["some text"]
    assert file.read_bytes() == good
    assert tokenised(cfg) == []


def test_a_copied_cache_counts(cfg: dict) -> None:
    tokenised(cfg)
    os.utime(only(cfg["cache_dir"], ".bin"))
    assert tokenised(cfg) == []


@pytest.mark.parametrize(("size", "itemsize"), [(257, 2), (1 << 16, 2), ((1 << 16) + 1, 4)])
def test_large_vocabularies_take_four_bytes(cfg: dict, size: int, itemsize: int) -> None:
    class Last(ByteTokenizer):
        def encode(self, texts):
            return [[0, self.size - 1] for _ in texts]

    assert stream(open_tokens(cfg, "val", Last(size), 1)) == [0, size - 1, 256]
    assert only(cfg["cache_dir"], ".bin").stat().st_size == 3 * itemsize


@pytest.mark.parametrize(
    ("ids", "message"), [([257], "the id 257"), ([-1], "the id -1"), (None, "0 texts for 1")]
)
def test_a_tokenizer_that_gives_what_it_should_not(
    cfg: dict, ids: list | None, message: str
) -> None:
    class Wrong(ByteTokenizer):
        def encode(self, texts):
            return [ids for _ in texts] if ids else []

    with pytest.raises(ConfigError, match=f"{message}.*0 to 256"):
        open_tokens(cfg, "val", Wrong(), 1)
    assert [file.suffix for file in (cfg["cache_dir"] / "tokens").iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("kind", ["lines", "no line ends", "paragraphs", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_text(tmp_path: Path, kind: str) -> None:
    line = "Sphinx of black quartz, judge my vow. " * 3
    text = {
        "lines": line + "\n",
        "no line ends": line,
        "paragraphs": 20 * line + "\n\n",
        "jsonl": json.dumps(dict(text=20 * line)) + "\n",
    }
    path = tmp_path / "a.txt"
    if kind == "parquet":
        _row_group(path, 20 * line)
    else:
        path.write_text(text[kind] * (30_000_000 // len(text[kind])))
    cfg = dict(
        type=kind if kind in ("jsonl", "parquet") else "text",
        val=path,
        cache_dir=tmp_path / "cache",
    )
    cfg |= dict(separator="\n\n") if kind == "paragraphs" else {}
    tracemalloc.start()
    try:
        blocks = open_tokens(cfg, "val", _Forgetful(), 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert blocks.num_tokens > 25e6
    assert peak < 20e6


class _Forgetful(ByteTokenizer):
    def encode(self, texts):
        self.texts = []
        return super().encode(texts)


def _row_group(path: Path, text: str) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = pyarrow.array([f"{i} {text}" for i in range(30_000_000 // len(text))])
    parquet.write_table(
        pyarrow.table(dict(text=texts)), path, compression="none", use_dictionary=False
    )


def _tokenise_slowly(cfg: dict, log: Path) -> None:
    class Slow(ByteTokenizer):
        def encode(self, texts):
            with log.open("a") as file:
                file.write("tokenised\n")
            time.sleep(0.5)
            return super().encode(texts)

    assert stream(open_tokens(cfg, "val", Slow(), 1)) == expected("some text")


def test_two_processes_tokenise_once(cfg: dict, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [
        context.Process(target=_tokenise_slowly, args=(cfg, tmp_path / "log")) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "tokenised\n"


def test_an_unwritable_cache_says_what_to_do(cfg: dict) -> None:
    cfg["cache_dir"].write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"(?s)cannot be written.*COMPT_CACHE_DIR"):
        tokenised(cfg)


def test_a_full_disk_says_what_to_do_and_leaves_nothing(
    cfg: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"(?s)No space left.*Make room for 1 MB"):
        tokenised(cfg)
    assert [file.suffix for file in (cfg["cache_dir"] / "tokens").iterdir()] in ([], [".lock"])


def test_what_an_interrupted_run_left_is_removed(cfg: dict) -> None:
    tokenised(cfg)
    file = only(cfg["cache_dir"], ".bin")
    leftover = file.with_name(f".{file.name}.123456789abc.tmp")
    leftover.write_text("half")
    file.unlink()
    tokenised(cfg)
    assert not leftover.exists()


def test_the_environment_moves_the_cache(
    cfg: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMPT_CACHE_DIR", str(tmp_path / "elsewhere"))
    del cfg["cache_dir"]
    tokenised(cfg)
    assert only(tmp_path / "elsewhere", ".bin").exists()
