from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from compt.data import _ranges as ranges_module
from compt.data.images import _tar_index as tar_index_module
from compt.data.images.broken import decode
from compt.data.images.shards import ShardPairs
from compt.errors import ConfigError, DataError

from .conftest import picture

Make = Callable[[str, Mapping[str, bytes]], Path]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def members(numbers: range) -> dict[str, bytes]:
    found = {}
    for i in numbers:
        found[f"./some.dir/{i:05d}.PNG"] = picture(i)
        found[f"./some.dir/{i:05d}.txt"] = f" picture {i}\n".encode()
        found[f"./some.dir/{i:05d}.json"] = json.dumps(
            {"kind": ["even", "odd"][i % 2], "n": i}
        ).encode()
    return found


def test_random_access_equals_reading_the_archive(make_tar: Make, cache: Path) -> None:
    path = make_tar("a.tar", members(range(30)))
    data = ShardPairs(path, cache_dir=cache, label_key="kind")
    assert data.classes == ("even", "odd")
    with tarfile.open(path) as tar:
        for i in reversed(range(30)):
            key = f"./some.dir/{i:05d}"
            expected = decode(tar.extractfile(f"{key}.PNG").read())  # type: ignore[union-attr]
            sample = data[i]
            assert sample["image"].tobytes() == expected.tobytes()
            assert (sample["captions"], sample["label"]) == ((f"picture {i}",), i % 2)
            assert data.where(i) == f"{path}: {key}"


def test_patterns_and_lists(make_tar: Make, cache: Path, tmp_path: Path) -> None:
    for shard in range(3):
        make_tar(f"s-{shard:03d}.tar", members(range(10 * shard, 10 * shard + 10)))
    pattern = ShardPairs(str(tmp_path / "s-{000..002}.tar"), cache_dir=cache)
    listed = ShardPairs([tmp_path / f"s-{i:03d}.tar" for i in range(3)], cache_dir=cache)
    for data in (pattern, listed):
        assert [data[i]["captions"][0] for i in range(30)] == [f"picture {i}" for i in range(30)]


def test_few_files_stay_open(
    make_tar: Make, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges_module, "MAX_OPEN", 2)
    paths = [make_tar(f"s{shard}.tar", members(range(shard, shard + 1))) for shard in range(5)]
    data = ShardPairs(paths, cache_dir=cache)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(2):
        assert [data[i]["captions"][0] for i in range(5)] == [f"picture {i}" for i in range(5)]
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before + 2


def test_files_close_when_the_interpreter_ends(
    make_tar: Make, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ShardPairs(make_tar("a.tar", members(range(1))), cache_dir=cache)
    assert data[0]["captions"] == ("picture 0",)
    (file,) = data._reader._open.values()
    monkeypatch.setattr(ranges_module, "os", None)  # modules are emptied first
    data._reader.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(make_tar: Make, cache: Path, method: str) -> None:
    data = ShardPairs(make_tar("a.tar", members(range(40))), cache_dir=cache)
    assert data[0]["captions"] == ("picture 0",)  # the file is open when the workers start
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=method)
    for i, sample in enumerate(loader):
        assert sample["captions"][0] == f"picture {i}"
        assert sample["image"].getpixel((0, 0))[0] == i
    assert pickle.loads(pickle.dumps(data))[3]["captions"] == ("picture 3",)


def test_captions_from_json(make_tar: Make, cache: Path) -> None:
    path = make_tar(
        "a.tar",
        {
            "0.jpg": picture(0, "JPEG"),
            "0.json": b'{"caption": "one"}',
            "1.webp": picture(1, "WEBP"),
            "1.json": b'{"captions": ["a", " b ", "", 3]}',
            "2.png": picture(2),
            "2.txt": b" ",
            "2.json": b'{"caption": "not from the text"}',
        },
    )
    data = ShardPairs(path, cache_dir=cache)
    assert [data[i]["captions"] for i in range(3)] == [("one",), ("a", "b"), ("not from the text",)]
    other = ShardPairs(path, cache_dir=cache, image_keys=["jpg"], caption_keys=["json:caption"])
    assert len(other) == 1
    assert other.skipped == 2


def test_images_without_captions(make_tar: Make, cache: Path) -> None:
    path = make_tar(
        "a.tar",
        {
            "0.jpg": picture(0, "JPEG"),
            "0.json": b'{"group": "cats", "tags": ["a"], "caption": "not asked for"}',
            "1.png": picture(1),
            "1.json": b"not JSON",
            "2.txt": b"no image",
            "3.png": picture(3),
        },
    )
    data = ShardPairs(path, cache_dir=cache, caption_keys=None, label_key="group", max_broken=0.25)
    assert [data[i]["captions"] for i in range(3)] == [(), (), ()]
    assert [data[i]["label"] for i in range(3)] == [0, -1, -1]
    assert data[2]["image"].getpixel((0, 0))[0] == 3
    assert (len(data), data.skipped, data.classes, data.check()) == (3, 1, ("cats",), 0)
    assert pickle.loads(pickle.dumps(data))[1]["captions"] == ()


def test_a_wrong_label_key_names_those_there_are(make_tar: Make, cache: Path) -> None:
    path = make_tar(
        "a.tar",
        {"0.png": picture(0), "0.json": b'{"group": "cats", "tags": ["a"]}', "1.png": picture(1)},
    )
    with pytest.raises(
        DataError, match=r"(?s)'json:group'. Did you mean 'group'.*a.tar: 0.*group, tags"
    ):
        ShardPairs(path, cache_dir=cache, caption_keys=None, label_key="json:group")
    with pytest.raises(DataError, match="under the key 'tags'\\.\n"):
        ShardPairs(path, cache_dir=cache, caption_keys=None, label_key="tags")
    bare = make_tar("b.tar", {"0.png": picture(0)})
    with pytest.raises(DataError, match="there are none"):
        ShardPairs(bare, cache_dir=cache, caption_keys=None, label_key="group")


def test_members_without_partner_are_left_out(make_tar: Make, cache: Path) -> None:
    path = make_tar(
        "a.tar",
        {
            "0.png": picture(0),
            "1.txt": b"text",
            "2.png": picture(2),
            "2.txt": b"two",
            "README": b"x",
        },
    )
    data = ShardPairs(path, cache_dir=cache)
    assert (len(data), data.skipped, data[0]["captions"]) == (1, 2, ("two",))


def test_the_index_is_read_once_until_the_file_changes(
    make_tar: Make, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tar("a.tar", members(range(5)))
    ShardPairs(path, cache_dir=cache)
    with monkeypatch.context() as patch:
        patch.setattr(tar_index_module, "_scan", lambda *_: pytest.fail("read again"))
        assert ShardPairs(path, cache_dir=cache)[4]["captions"] == ("picture 4",)
    make_tar("a.tar", members(range(7)))
    assert len(ShardPairs(path, cache_dir=cache)) == 7


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_index_is_made_anew(make_tar: Make, cache: Path, damage: bytes | None) -> None:
    path = make_tar("a.tar", members(range(5)))
    ShardPairs(path, cache_dir=cache)
    (index,) = (cache / "shards").iterdir()
    good = index.read_bytes()
    index.write_bytes(good[: len(good) // 2] if damage is None else damage)
    assert len(ShardPairs(path, cache_dir=cache)) == 5
    assert index.stat().st_size == len(good)


def test_without_a_cache_it_works_all_the_same(make_tar: Make, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert len(ShardPairs(make_tar("a.tar", members(range(5))), cache_dir=cache)) == 5


def test_archives_that_cannot_be_used(make_tar: Make, cache: Path, tmp_path: Path) -> None:
    path = make_tar("a.tar", members(range(5)))
    whole = path.read_bytes()
    with pytest.raises(DataError, match="No such file"):
        ShardPairs(tmp_path / "none.tar", cache_dir=cache)
    path.write_bytes(whole[: 5 * 512 + 100])
    with pytest.raises(DataError, match="cut short"):
        ShardPairs(path, cache_dir=cache)
    path.write_bytes(bytes(2_000_000) + whole)
    with pytest.raises(DataError, match="ends after 0 of"):
        ShardPairs(path, cache_dir=cache)
    path.write_bytes(bytes(10_240))
    with pytest.raises(DataError, match="no samples"):
        ShardPairs(path, cache_dir=cache)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(__file__, "0.txt")
    with pytest.raises(DataError, match="uncompressed"):
        ShardPairs(tmp_path / "a.tar.gz", cache_dir=cache)


def test_wrong_keys_name_the_members_there_are(make_tar: Make, cache: Path) -> None:
    path = make_tar("a.tar", members(range(5)))
    with pytest.raises(DataError, match="json, png, txt"):
        ShardPairs(path, cache_dir=cache, image_keys=["tiff"])
    with pytest.raises(DataError, match="'colour'"):
        ShardPairs(path, cache_dir=cache, label_key="colour")
    with pytest.raises(DataError, match=r"an image \(tiff\)\."):
        ShardPairs(path, cache_dir=cache, image_keys=["tiff"], caption_keys=None)
    with pytest.raises(ConfigError, match="caption_keys"):
        ShardPairs(path, cache_dir=cache, caption_keys=[])
    data = ShardPairs(path, cache_dir=cache, caption_keys=["json:title"])
    with pytest.raises(DataError, match="no caption in json:title"):
        data.check()


@pytest.mark.parametrize(
    "urls", ["filecache::s3://bucket/a.tar", "pipe:cat a.tar", [], "a-{000..002.tar"]
)
def test_wrong_urls(urls: object) -> None:
    with pytest.raises(ConfigError):
        ShardPairs(urls)  # type: ignore[arg-type]


def test_an_archive_cut_short_later_breaks_its_samples(make_tar: Make, cache: Path) -> None:
    path = make_tar("a.tar", members(range(10)))
    data = ShardPairs(path, cache_dir=cache, max_broken=0.9)
    os.truncate(path, path.stat().st_size // 3)
    assert data[9]["captions"] == ("picture 0",)
    assert data.broken_count == 1


def test_what_has_no_image_or_caption_is_counted(make_tar: Make, cache: Path) -> None:
    whole = members(range(6))
    del whole["./some.dir/00001.PNG"]
    for ending in ("txt", "json"):
        del whole[f"./some.dir/00002.{ending}"]
    path = make_tar("a.tar", whole)
    for _ in range(2):  # the second time from the cache
        data = ShardPairs(path, cache_dir=cache, max_broken=0.5)
        assert data.left_out.samples == {"without an image": 1, "without a caption": 1}
        assert (len(data), data.left_out.total) == (4, 6)
    with pytest.raises(DataError, match=r"(?s)2 of 6 samples.*00001 \(without an image\)"):
        ShardPairs(path, cache_dir=cache).check()


def test_dots_end_the_name_of_a_sample(make_tar: Make, cache: Path) -> None:
    dotted = {f"photo.{i}.png": picture(i) for i in range(5)}
    seg = {"./some.dir/00000.seg.png": picture(9)}
    data = ShardPairs(
        make_tar("a.tar", {**members(range(5)), **dotted, **seg}), cache_dir=cache, max_broken=0.5
    )
    (reason,) = data.left_out.samples
    assert "hold a dot" in reason
    assert (len(data), data.left_out.samples[reason], data.left_out.total) == (5, 5, 10)
    assert data.left_out.parts == {"further images of a sample": 1}


def test_names_that_come_twice_are_counted(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number in (0, 1, 0):
            for ending, data in (("png", picture(number)), ("txt", b"x")):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    left = ShardPairs(path, cache_dir=cache).left_out
    assert (left.samples, left.total) == ({"with the name of a later one in its archive": 1}, 3)


def test_several_images_and_members_of_no_sample_are_said(make_tar: Make, cache: Path) -> None:
    others = {"./some.dir/00000.jpg": picture(0, "JPEG"), "README": b"x", ".hidden": b"x"}
    data = ShardPairs(make_tar("a.tar", {**members(range(3)), **others}), cache_dir=cache)
    assert data.left_out.samples == {}
    assert data.left_out.parts == {
        "further images of a sample": 1,
        "archive members that belong to no sample": 2,
    }


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ({"9.txt": "café".encode("latin-1")}, "whose caption is not UTF-8"),
        ({"9.txt": "café".encode("utf-16")}, "whose caption is not UTF-8"),
        ({"9.txt": b" \n"}, "without a caption"),
        ({"9.json": b'{"caption": null}'}, "without a caption"),
        ({"9.json": b'{"caption": "\\ud800 thing"}'}, "whose caption is not UTF-8"),
        ({"9.json": b'{"caption": "cut sho'}, "with a damaged JSON member"),
        ({"9.json": b"[" * 100_000}, "with a damaged JSON member"),
    ],
)
def test_captions_that_cannot_be_read(
    make_tar: Make, cache: Path, member: dict[str, bytes], reason: str
) -> None:
    path = make_tar("a.tar", {**members(range(3)), "9.png": picture(9), **member})
    data = ShardPairs(path, cache_dir=cache, max_broken=0.3)
    assert data.check() == 1
    assert data.left_out.samples == {reason: 1}


def test_damage_within_an_archive_is_not_its_end(make_tar: Make, cache: Path) -> None:
    path = make_tar("a.tar", members(range(5)))
    whole = path.read_bytes()
    path.write_bytes(whole[: 6 * 1024] + b"\xff" * 64 + whole[6 * 1024 + 64 :])
    with pytest.raises(DataError, match="ends after 6144 of"):
        ShardPairs(path, cache_dir=cache)
    path.write_bytes(whole + whole)
    with pytest.raises(DataError, match="another archive"):
        ShardPairs(path, cache_dir=cache)
    path.write_bytes(whole.rstrip(b"\0").ljust(len(whole) // 512 * 512, b"\0")[: 15 * 1024])
    left = ShardPairs(path, cache_dir=cache).left_out
    assert left.parts == {"archives without an end mark, which may be cut short": 1}


def test_archives_that_are_named_twice_are_said(make_tar: Make, cache: Path) -> None:
    path = make_tar("a.tar", members(range(2)))
    data = ShardPairs([path, path], cache_dir=cache)
    assert len(data) == 4
    assert data.left_out.parts == {"archives that are named, and read, more than once": 1}


def test_its_fingerprint_tells_samples_apart(make_tar: Make, cache: Path) -> None:
    path = make_tar("a.tar", members(range(5)))
    first = ShardPairs(path, cache_dir=cache).fingerprint
    assert first == ShardPairs(path, cache_dir=cache).fingerprint
    assert (first["files"], first["samples"]) == (1, 5)
    make_tar("a.tar", members(range(6)))
    assert ShardPairs(path, cache_dir=cache).fingerprint["samples"] == 6
    make_tar("a.tar", {**members(range(4)), "5.png": picture(9), "5.txt": b"x"})
    assert ShardPairs(path, cache_dir=cache).fingerprint["content"] != first["content"]
