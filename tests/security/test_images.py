"""Decode images of strangers in Pillow alone, in bounded memory."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib

import pytest
from PIL import Image

from compt import DataError
from compt.data.images.decode import BrokenSample, decode, decode_file
from compt.evaluation.clip_benchmark import check_members
from compt.evaluation.images import open_images

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(trap, tmp_path, monkeypatch):
    """A program in the place of Ghostscript, which nobody may call."""
    from PIL import EpsImagePlugin

    script = trap.script(tmp_path / "bin" / "gs")
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    monkeypatch.setattr(EpsImagePlugin, "gs_windows_binary", None)


def png(width: int, height: int) -> bytes:
    """Return an image in a few bytes, however large it says it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def tar(file, **members: bytes):
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def test_postscript_in_data(ghostscript):
    with pytest.raises(BrokenSample, match="cannot identify"):
        decode(POSTSCRIPT)


def test_postscript_in_a_folder_to_evaluate_with(ghostscript, tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.jpg").write_bytes(POSTSCRIPT)
    images = open_images(tmp_path / "images")
    with pytest.raises(Image.UnidentifiedImageError):
        images[0]


@pytest.mark.parametrize("ending", ["pyd", "pkl", "pickle", "pth", "PKL", "jpg"])
def test_members_that_webdataset_or_pillow_would_run(trap, tmp_path, ending):
    hidden = POSTSCRIPT if ending == "jpg" else trap.pickled()
    shard = tar(tmp_path / "0.tar", a_txt=b"x", **{f"a_{ending}": hidden})
    with pytest.raises(DataError, match=f"'a.{ending}' is a program") as caught:
        check_members(shard)
    assert str(shard) in str(caught.value)


def test_members_that_they_would_not(tmp_path):
    check_members(tar(tmp_path / "0.tar", a_jpg=b"x", a_txt=b"%!", b_cls=b""))


def test_an_image_that_unpacks_to_more_than_memory():
    with pytest.raises(BrokenSample, match="could be decompression bomb"):
        decode(png(100_000, 100_000))


def test_an_image_file_without_end():
    with pytest.raises(BrokenSample, match="no regular file"):
        decode_file("/dev/zero")


def test_an_image_file_that_somebody_has_to_write(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BrokenSample, match="no regular file"):
        decode_file(str(tmp_path / "a.png"))


def test_an_image_file_that_is_mostly_holes(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BrokenSample, match="MB"):
        decode_file(str(tmp_path / "a.png"))


def test_an_archive_that_leads_back_to_its_beginning(tmp_path):
    """Python's reader goes round in it for ever."""
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
    data[148:156] = b"%06o\0 " % (256 + sum(data[:148]) + sum(data[156:512]))
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        check_members(tmp_path / "0.tar")
