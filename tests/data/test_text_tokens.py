"""Files of tokens that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compt.data.text import _ids as module, open_tokens
from compt.errors import ConfigError, DataError

from .byte_tokenizer import ByteTokenizer, stream

TOKENS = np.arange(10, 30)


@pytest.fixture
def cfg(tmp_path: Path) -> dict:
    """One file of 20 tokens."""
    (tmp_path / "a.bin").write_bytes(TOKENS.astype("uint16").tobytes())
    return dict(type="tokens", val=tmp_path / "a.bin", cache_dir=tmp_path / "cache")


def opened(cfg: dict, **options) -> list[int]:
    return stream(open_tokens({**cfg, **options}, "val", ByteTokenizer(), 1))


def test_raw_numbers(cfg: dict, tmp_path: Path) -> None:
    assert opened(cfg) == TOKENS.tolist()
    (tmp_path / "b.bin").write_bytes(b"\xff" * 1024 + TOKENS.astype("int32").tobytes())
    assert opened(cfg, val=str(tmp_path / "b.bin"), dtype="int32", header=1024) == TOKENS.tolist()


def test_npy_files_know_their_type(cfg: dict, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", TOKENS.astype(">u4"))
    assert opened(cfg, val=tmp_path / "b.npy") == TOKENS.tolist()
    assert opened(cfg, val=[tmp_path / "a.bin", tmp_path / "b.npy"]) == [*TOKENS, *TOKENS]
    assert opened(cfg, val=tmp_path, pattern="*.npy") == TOKENS.tolist()


def test_the_bytes_of_the_text_are_known_if_given(cfg: dict) -> None:
    assert open_tokens(cfg, "val", ByteTokenizer(), 3).num_bytes is None
    assert open_tokens({**cfg, "bytes_per_token": 4.2}, "val", ByteTokenizer(), 3).num_bytes == 84


def test_tokens_of_another_tokenizer_are_refused(
    cfg: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCAN", 7)
    (tmp_path / "b.bin").write_bytes(np.append(TOKENS, 257).astype("uint16").tobytes())
    cfg["val"] = [cfg["val"], tmp_path / "b.bin"]
    with pytest.raises(
        DataError, match=r"(?s)has the token 257; the tokenizer has 0 to 256.*b\.bin.*dtype"
    ):
        opened(cfg)
    assert len(stream(open_tokens(cfg, "val", ByteTokenizer(258), 1))) == 41
    (tmp_path / "b.bin").write_bytes(np.array([-1, 3], "int16").tobytes())
    with pytest.raises(DataError, match="has the token -1"):
        opened(cfg, dtype="int16")


def test_tokens_are_looked_at_once(cfg: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(cfg)
    scan = module._scan
    monkeypatch.setattr(module, "_scan", lambda *_: pytest.fail("looked at again"))
    opened(cfg)
    (facts,) = cfg["cache_dir"].glob("tokens/*.json")
    for damage in ("[]", "[[1", "{}", "[[1]]"):
        facts.write_text(damage)
        monkeypatch.setattr(module, "_scan", scan)
        opened(cfg)
        assert facts.read_text() == "[[0, 29]]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dtype="float32"), "dtype='float32'"),
        (dict(dtype="uint17"), "dtype='uint17'"),
        (dict(dtype=None), "dtype: None is"),
        (dict(header=-1), "header=-1"),
        (dict(header=1.5), "header: 1.5 is"),
        (dict(bytes_per_token=0), "bytes_per_token=0"),
        (dict(bytes_per_token="4"), "bytes_per_token: '4' is"),
        (dict(pattern=""), "pattern=''"),
    ],
)
def test_wrong_options(cfg: dict, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(cfg, **options)


def test_files_that_hold_no_tokens(cfg: dict, tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"123")
    with pytest.raises(
        DataError, match=r"(?s)3 bytes less a header of 0.*b\.bin.*dtype and header"
    ):
        opened(cfg, val=tmp_path / "b.bin")
    with pytest.raises(DataError, match="3 bytes less a header of 4"):
        opened(cfg, val=tmp_path / "b.bin", header=4)
    for array, found in ((np.ones(3), r"float64 \[3\]"), (np.ones((2, 2), int), r"int64 \[2, 2\]")):
        np.save(tmp_path / "c.npy", array)
        with pytest.raises(DataError, match=rf"(?s)The array is {found}.*c\.npy"):
            opened(cfg, val=tmp_path / "c.npy")
    (tmp_path / "c.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"(?s)cannot be read.*c\.npy"):
        opened(cfg, val=tmp_path / "c.npy")
    (tmp_path / "d.bin").write_bytes(b"")
    with pytest.raises(DataError, match="has 0 tokens"):
        opened(cfg, val=tmp_path / "d.bin")
