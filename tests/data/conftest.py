"""Small pictures, tables and shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image


def picture(number: int, format: str = "PNG") -> bytes:
    """The bytes of an 8x8 picture whose colour tells its number."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 2 * number % 256, 7)).save(out, format)
    return out.getvalue()


@pytest.fixture
def make_tar(tmp_path: Path) -> Callable[[str, Mapping[str, bytes]], Path]:
    """Write a tar archive of members: name -> bytes."""

    def make(name: str, members: Mapping[str, bytes]) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 20 pictures, 00.png to 19.png."""
    for i in range(20):
        (tmp_path / f"{i:02d}.png").write_bytes(picture(i))
    return tmp_path
