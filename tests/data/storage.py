"""File systems that stand for object storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fsspec.core import url_to_fs

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Run a server that answers as S3 does, on this machine, and return its address."""
    pytest.importorskip("s3fs", reason='pip install "compt[test-s3]"')
    server = pytest.importorskip("moto.server", reason='pip install "compt[test-s3]"')
    threaded = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    threaded.start()
    yield "http://{}:{}".format(*threaded.get_host_and_port())
    threaded.stop()


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty folder that is not on this machine's disk."""
    if request.param == "memory":
        system = url_to_fs("memory://bucket")[0]
        system.store.clear()
        system.pseudo_dirs[:] = [""]
        return "memory://bucket"
    return empty_s3_bucket(request.getfixturevalue("s3_server"), monkeypatch)


def empty_s3_bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    system: Any = url_to_fs("s3://bucket")[0]
    system.clear_instance_cache()  # of another server or other credentials
    system = url_to_fs("s3://bucket")[0]
    system.invalidate_cache()
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    return "s3://bucket"


def put(url: str, data: bytes) -> None:
    system, path = url_to_fs(url)
    system.pipe_file(path, data)
    system.invalidate_cache()
