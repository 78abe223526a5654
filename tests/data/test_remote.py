"""Shards and token files that are read from object storage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem
from torch.utils.data import DataLoader

from compt.data import _storage
from compt.data.images import _tar_index
from compt.data.images.broken import NO_CAPTION
from compt.data.images.shards import ShardPairs
from compt.data.text import open_tokens
from compt.errors import DataError
from compt.interfaces import left_out

from .byte_tokenizer import ByteTokenizer
from .conftest import picture
from .storage import bucket, put, s3_server

__all__ = ["bucket", "s3_server"]


class QuietHandler(SimpleHTTPRequestHandler):
    """Python's own, which takes no byte ranges."""

    def log_message(self, *args: Any) -> None: ...


Make = Callable[[str, Mapping[str, bytes]], Path]


def samples(numbers: range) -> dict[str, bytes]:
    members = {}
    for i in numbers:
        members[f"{i:03d}.png"] = picture(i)
        members[f"{i:03d}.txt"] = f"picture {i}".encode()
        members[f"{i:03d}.json"] = b'{"kind": "%s"}' % (b"even", b"odd")[i % 2]
    return members


@pytest.fixture
def shards(make_tar: Make, bucket: str, tmp_path: Path) -> tuple[list[Path], str, Path]:
    """Write three shards on disk and in the bucket, the last with a sample without a caption."""
    paths = [make_tar(f"s-{i}.tar", samples(range(8 * i, 8 * i + 8))) for i in range(2)]
    paths.append(make_tar("s-2.tar", {**samples(range(16, 20)), "alone.png": picture(0)}))
    for path in paths:
        put(f"{bucket}/train/{path.name}", path.read_bytes())
    return paths, f"{bucket}/train", tmp_path / "cache"


def pixels(data: Any, index: int) -> tuple[Any, ...]:
    sample = data[index]
    return sample["image"].tobytes(), sample["captions"], sample["label"]


@pytest.mark.parametrize("pattern", ["s-{0..2}.tar", "*.tar", ""])
def test_shards_on_a_server_are_what_they_are_on_disk(shards: Any, pattern: str) -> None:
    paths, folder, cache = shards
    if not pattern:
        put(f"{folder}/readme.md", b"no shard")
    options = dict(cache_dir=cache, label_key="kind", max_broken=0.1)
    local = ShardPairs(paths, **options)
    remote = ShardPairs(f"{folder}/{pattern}".rstrip("/"), **options)
    assert remote.fingerprint == local.fingerprint  # moved shards are no other data
    assert remote.classes == ("even", "odd")
    assert remote.left_out.samples == local.left_out.samples == {NO_CAPTION: 1}
    skipped = {} if pattern else {"files in folders whose names are not '*.tar'": 1}
    assert remote.left_out.parts == {**local.left_out.parts, **skipped}
    remote.fetch_ahead(range(3, 12))
    assert [pixels(remote, i) for i in range(20)] == [pixels(local, i) for i in range(20)]
    assert remote.check() == 0
    assert remote.where(19).endswith("bucket/train/s-2.tar: 019")


def captions_of(batch: list[Any]) -> list[str]:
    return [sample["captions"][0] for sample in batch]


def test_workers_have_connections_of_their_own(shards: Any) -> None:
    _, folder, cache = shards
    data = ShardPairs(f"{folder}/*.tar", cache_dir=cache, max_broken=0.1)
    assert data[0]["captions"] == ("picture 0",)  # the parent has one before they begin
    loader = DataLoader(data, batch_size=5, num_workers=2, collate_fn=captions_of)
    read = [caption for batch in loader for caption in batch]
    assert read == [f"picture {i}" for i in range(20)]


def test_an_index_is_read_once_until_its_shard_changes(
    shards: Any, make_tar: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, cache = shards
    urls = [f"{folder}/s-{i}.tar" for i in range(2)]
    before = ShardPairs(urls, cache_dir=cache).fingerprint
    scanned = []
    scan = _tar_index._scan
    monkeypatch.setattr(_tar_index, "_scan", lambda f: scanned.append(f.name) or scan(f))
    assert ShardPairs(urls, cache_dir=cache).fingerprint == before
    assert scanned == []
    put(urls[1], make_tar("other.tar", samples(range(50, 58))).read_bytes())
    changed = ShardPairs(urls, cache_dir=cache)
    assert [Path(name).name for name in scanned] == ["s-1.tar"]
    assert changed.fingerprint != before
    assert changed[15]["captions"] == ("picture 57",)


def test_a_batch_is_few_requests(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder, cache = shards
    data = ShardPairs(f"{folder}/*.tar", cache_dir=cache, max_broken=0.1)
    system, _ = data._reader._locate(f"{folder}/s-0.tar")
    requests = []
    cat_ranges = system.cat_ranges

    def counting(paths: list[str], *args: Any, **kwargs: Any) -> Any:
        requests.append(len(paths))
        return cat_ranges(paths, *args, **kwargs)

    monkeypatch.setattr(system, "cat_ranges", counting)
    data.fetch_ahead(range(20))
    assert [data[i]["captions"] for i in range(20)] == [(f"picture {i}",) for i in range(20)]
    assert requests == [3]  # one call, of as many ranges as there are shards


def test_shards_that_are_not_as_they_should_be(shards: Any, bucket: str) -> None:
    paths, folder, cache = shards
    with pytest.raises(DataError, match=r"(?s)no file 's-9.tar'\. Did you mean 's-[0-2].tar'"):
        ShardPairs(f"{folder}/s-{{0,9}}.tar", cache_dir=cache)
    whole = paths[0].read_bytes()
    put(f"{bucket}/torn.tar", whole[:2000])
    with pytest.raises(DataError, match=r"(?s)no readable, uncompressed.*bucket/torn\.tar"):
        ShardPairs(f"{bucket}/torn.tar", cache_dir=cache)
    put(f"{bucket}/empty.tar", bytes(10240))
    with pytest.raises(DataError, match=r"(?s)holds no samples.*bucket/empty\.tar"):
        ShardPairs(f"{bucket}/empty.tar", cache_dir=cache)
    put(f"{bucket}/nothing.tar", b"")
    with pytest.raises(DataError, match=r"(?s)bucket/nothing\.tar"):
        ShardPairs(f"{bucket}/nothing.tar", cache_dir=cache)


def test_a_shard_that_is_cut_short_or_gone_while_training_stops_it(shards: Any) -> None:
    paths, folder, cache = shards
    data = ShardPairs(f"{folder}/*.tar", cache_dir=cache, max_broken=1.0)
    put(f"{folder}/s-1.tar", paths[1].read_bytes()[:6000])
    with pytest.raises(DataError, match=r"(?s)bytes came.*s-1\.tar|InvalidRange.*s-1\.tar|s-1"):
        data[15]
    system, path = url_to_fs(f"{folder}/s-0.tar")
    system.rm(path)
    with pytest.raises(DataError, match=r"(?s)FileNotFoundError.*s-0\.tar.*do: Check that it"):
        data.fetch_ahead([0, 1])
    assert data.broken_count == 0  # nothing takes the place of what a server does not give


def failing(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[float]:
    """Let reading ranges from memory fail so often, and return the waits between the tries."""
    left, waits = list(errors), list[float]()
    monkeypatch.setattr(_storage.time, "sleep", waits.append)
    cat_file = MemoryFileSystem.cat_file

    def unreliable(self: Any, *args: Any, **kwargs: Any) -> bytes:
        if left:
            raise left.pop(0)
        return cat_file(self, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", unreliable, raising=False)
    return waits


@pytest.fixture
def in_memory(make_tar: Make, tmp_path: Path) -> ShardPairs:
    put("memory://one/a.tar", make_tar("a.tar", samples(range(4))).read_bytes())
    return ShardPairs("memory://one/a.tar", cache_dir=tmp_path / "cache")


@pytest.mark.filterwarnings("default::UserWarning:compt")
def test_a_server_that_fails_for_a_while_is_asked_again(
    in_memory: ShardPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = failing(monkeypatch, TimeoutError("busy"), ConnectionResetError("gone"))
    with pytest.warns(UserWarning, match=r"a\.tar: TimeoutError: busy. Trying again in 1 s"):
        assert in_memory[0]["captions"] == ("picture 0",)
    assert waits == [1, 5]


@pytest.mark.filterwarnings("default::UserWarning:compt")
def test_a_server_that_stays_away_stops_the_run(
    in_memory: ShardPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = failing(monkeypatch, *[ConnectionError("refused")] * 9)
    with (
        pytest.warns(UserWarning, match="ConnectionError"),
        pytest.raises(DataError, match=r"(?s)ConnectionError: refused.*--resume goes on"),
    ):
        in_memory[0]
    assert waits == list(_storage.WAITS)
    assert in_memory.broken_count == 0


def test_credentials_that_have_expired_are_no_failure_for_a_while(
    in_memory: ShardPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = failing(monkeypatch, *[PermissionError("The token has expired.")] * 9)
    with pytest.raises(DataError, match=r"(?s)token has expired.*Check the credentials"):
        in_memory[0]
    assert waits == []


def test_a_server_that_is_not_there(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from .storage import empty_s3_bucket

    empty_s3_bucket(s3_server, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    url_to_fs("s3://bucket")[0].clear_instance_cache()
    with pytest.raises(DataError, match=r"(?s)127\.0\.0\.1:9.*Check that it is there"):
        ShardPairs("s3://bucket/a.tar")


def test_a_web_server_without_byte_ranges_is_refused_before_training(
    make_tar: Make, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    make_tar("a.tar", samples(range(4)))
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.tar"
        with pytest.raises(DataError, match=r"(?s)http://127.*a\.tar"):
            ShardPairs(url, cache_dir=tmp_path / "cache").check()
        server.shutdown()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(DataError, match=r'(?s)gcsfs.*pip install "compt\[gcs\]"'):
        ShardPairs("gs://bucket/a.tar")


TOKENS = np.arange(100, 350, dtype=np.uint16) % 250


def token_files(folder: Path, bucket: str) -> tuple[list[Path], list[str]]:
    folder.mkdir(exist_ok=True)
    TOKENS[:101].tofile(folder / "a.bin")
    np.save(folder / "b.npy", TOKENS[101:])
    names = ["a.bin", "b.npy"]
    for name in names:
        put(f"{bucket}/tokens/{name}", (folder / name).read_bytes())
    return [folder / name for name in names], [f"{bucket}/tokens/{name}" for name in names]


def test_tokens_on_a_server_are_what_they_are_on_disk(bucket: str, tmp_path: Path) -> None:
    paths, urls = token_files(tmp_path / "tokens", bucket)
    tokenizer = ByteTokenizer()
    cfg = dict(type="tokens", train=paths, val=urls, cache_dir=tmp_path / "cache")
    local, remote = (open_tokens(cfg, split, tokenizer, 8) for split in ("train", "val"))
    assert remote.fingerprint == local.fingerprint
    assert left_out(remote).parts == left_out(local).parts
    expected = [local[i]["tokens"].tolist() for i in range(len(local))]
    assert [remote[i]["tokens"].tolist() for i in range(len(remote))] == expected
    loader = DataLoader(remote, batch_size=7, num_workers=2)
    assert [row for batch in loader for row in batch["tokens"].tolist()] == expected


def test_ids_that_the_tokenizer_lacks_are_found_before_training(
    bucket: str, tmp_path: Path
) -> None:
    put(f"{bucket}/tokens/a.bin", np.full(50, 9999, np.uint16).tobytes())
    cfg = dict(type="tokens", train=f"{bucket}/tokens/", cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"(?s)has the token 9999.*bucket/tokens/a\.bin"):
        open_tokens(cfg, "train", ByteTokenizer(), 8)
