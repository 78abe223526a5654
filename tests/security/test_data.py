"""Read data of strangers in bounded memory, time and room, and nothing beside it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import struct
import tarfile

import pytest

from compt import DataError
from compt.data.images.csv import CsvPairs
from compt.data.images.shards import ShardPairs
from compt.data.text.files import TextFiles
from compt.data.text.rows import JsonLines, _dataset
from compt.data.text.token_files import TokenFiles
from compt.interfaces import foreign
from tests.security.test_images import png


@pytest.fixture
def shard(tmp_path):
    """Write an archive of given headers, each with its data, and one sound sample."""

    def write(*members: tuple[tarfile.TarInfo, bytes]):
        with tarfile.open(tmp_path / "0.tar", "w") as archive:
            for info, data in [*members, (named("good.jpg"), png(1, 1)), (named("good.txt"), b"x")]:
                info.size = len(data) if info.isreg() else 0
                archive.addfile(info, io.BytesIO(data))
        return tmp_path / "0.tar"

    return write


def named(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def opened(path, **options) -> ShardPairs:
    return ShardPairs(path, cache_dir=path.parent / "cache", **options)


@pytest.mark.parametrize("name", ["/etc/evil.jpg", "../../evil.jpg", "a/../../evil.jpg"])
def test_members_with_paths_are_read_where_they_are(shard, tmp_path, name):
    files = set(tmp_path.rglob("*"))
    path = shard((named(name), png(1, 1)), (named(name.replace("jpg", "txt")), b"a caption"))
    pairs = opened(path)
    assert len(pairs) == 2 and pairs.captions(0) == ("a caption",)
    others = set(tmp_path.rglob("*")) - files - {path}
    assert all(tmp_path / "cache" in (p, *p.parents) for p in others)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_members_that_are_no_files_are_passed_over(shard, kind):
    path = shard((named("evil.jpg", kind, "/etc/passwd"), b""), (named("evil.txt"), b"x"))
    pairs = opened(path, max_broken=0.5)
    assert len(pairs) == 1
    assert pairs.left_out.parts["archive members that belong to no sample"] == 1


def with_size(path, size: int):
    """Say in the header of the first member of an archive that it has so many bytes."""
    data = bytearray(path.read_bytes())
    data[124:136] = (
        b"\x80" + size.to_bytes(11, "big") if size >= 0 else size.to_bytes(12, "big", signed=True)
    )
    data[148:156] = b"%06o\0 " % (256 + sum(data[:148]) + sum(data[156:512]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [10**6, 2**40, 2**80])
def test_members_that_are_larger_than_their_archive(shard, size):
    path = with_size(shard((named("a.jpg"), b"")), size)
    with pytest.raises(DataError, match="beyond its end") as caught:
        opened(path)
    assert str(path) in caught.value.where


def test_members_that_lie_before_those_they_follow(tmp_path):
    """Python's reader goes round in such an archive for ever."""
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            archive.addfile(named(name))
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[1024 + 124 : 1024 + 136] = struct.pack(">12s", (-1024).to_bytes(12, "big", signed=True))
    header = data[1024:1536]
    total = 256 + sum(header[:148]) + sum(header[156:])
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % total
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"beyond its end|lies before"):
        opened(tmp_path / "0.tar")


def test_members_that_no_memory_would_hold(shard, monkeypatch):
    path = shard((named("evil.jpg"), bytes(3000)), (named("evil.txt"), b"x"))
    monkeypatch.setattr("compt.data.images.shards.MOST_BYTES", 2000)
    pairs = opened(path, max_broken=0.6)
    with pytest.raises(Exception, match="MB"):
        pairs._member(0, "image")


def test_endings_of_any_length(shard):
    """An array of names is as wide as the widest of them."""
    path = shard(*((named(f"a.{i}{'x' * 60_000}"), b"") for i in range(4)))
    pairs = opened(path)
    assert pairs.left_out.parts["archive members that belong to no sample"] == 4


def test_json_in_members_that_is_too_deep(shard):
    deep = b"[" * 100_000
    path = shard((named("evil.jpg"), png(1, 1)), (named("evil.json"), deep))
    pairs = opened(path, max_broken=0.5, caption_keys=["json:caption", "txt"])
    with pytest.raises(Exception, match="JSON is damaged"):
        pairs.captions(0)


@pytest.mark.parametrize("image", ["/dev/zero", "../../etc/passwd", "/etc/shadow", "a\0b", "."])
def test_tables_that_name_no_images(tmp_path, image):
    rows = f"image,caption\n{image},x\n".replace("\0", "%00")
    (tmp_path / "table.csv").write_text(rows)
    with pytest.raises(DataError, match="cannot be read"):
        CsvPairs(tmp_path / "table.csv", max_broken=0.0)[0]


@pytest.fixture
def short(monkeypatch):
    """Lines may have 4096 characters: the test is not to fill the memory."""
    monkeypatch.setattr(foreign, "MOST_LINE", 4096)


def test_a_row_that_no_memory_would_hold(tmp_path, short):
    (tmp_path / "table.csv").write_text("image,caption\na.jpg," + "x" * 5000 + "\n")
    with pytest.raises(DataError, match="4,096 characters or more") as caught:
        CsvPairs(tmp_path / "table.csv")
    assert "line 2" in caught.value.where


def documents(source) -> list[str]:
    return list(source.open("train"))


def test_a_line_of_json_that_no_memory_would_hold(tmp_path, short):
    line = json.dumps({"text": "x" * 100_000})
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    with pytest.raises(DataError, match="4,096 characters or more") as caught:
        documents(JsonLines(train=str(tmp_path / "a.jsonl.gz")))
    assert "a.jsonl.gz, line 1" in caught.value.where


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_text_that_unpacks_to_more_than_any_text(tmp_path, monkeypatch, pack):
    monkeypatch.setattr("compt.data.text.files.SLACK", 10_000)
    file = tmp_path / f"a.txt.{'gz' if pack is gzip.compress else 'bz2'}"
    file.write_bytes(pack(b"It is the same. " * 60_000))
    with pytest.raises(DataError, match="more than 200 times") as caught:
        documents(TextFiles(train=str(file)))
    assert str(file) in caught.value.where


def test_text_that_is_packed_as_text_is(tmp_path, monkeypatch):
    monkeypatch.setattr("compt.data.text.files.SLACK", 10_000)
    text = "".join(f"Line {i} is not as line {i * i % 977}.\n" for i in range(20_000))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert documents(TextFiles(train=str(tmp_path / "a.txt.gz"))) == [text]


def test_a_saved_dataset_names_no_files_outside(tmp_path):
    pytest.importorskip("datasets")
    state = {"_data_files": [{"filename": "../../outside.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(Exception, match="outside of its folder"):
        _dataset(str(tmp_path), "train")


def npy(path, header: str, data: bytes = b""):
    """Write a file of this header."""
    text = header.encode().ljust(118) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000000000,)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-5,)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': __import__('os')}",
        "[" * 100,
    ],
)
def test_arrays_that_lie(tmp_path, trap, header):
    npy(tmp_path / "a.npy", header, trap.pickled())
    with pytest.raises(DataError) as caught:
        TokenFiles(train=str(tmp_path / "a.npy")).open("train")
    assert "a.npy" in caught.value.where


def test_an_array_of_numbers(tmp_path):
    header = "{'descr': '<u2', 'fortran_order': False, 'shape': (2,)}"
    npy(tmp_path / "a.npy", header, bytes(4))
    assert TokenFiles(train=str(tmp_path / "a.npy")).open("train").num_tokens == 2
