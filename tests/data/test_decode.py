"""Images decode to what they show, whatever their mode and bit depth."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, ImageFileDirectory_v2

from compt.data.images import decode as module
from compt.data.images.decode import BrokenSample, decode


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def grey(value: float, kind: Any) -> Image.Image:
    """One pixel of a value, beside a black one."""
    return Image.fromarray(np.array([[value, 0]], kind))


def level(data: bytes) -> int:
    """The grey level of the first pixel."""
    image = decode(data)
    assert image.mode == "RGB"
    (value,) = set(image.getpixel((0, 0)))  # type: ignore[arg-type]
    return int(value)


@pytest.mark.parametrize(
    ("value", "shown"), [(0, 0), (200, 1), (255, 1), (257 * 9, 9), (32768, 128), (65535, 255)]
)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG2000", "PGM"])
def test_16_bits_are_scaled_by_the_files_depth_not_by_its_values(
    value: int, shown: int, format: str
) -> None:
    if format == "PGM":
        data = b"P5 2 1 65535\n" + struct.pack(">HH", value, 0)
    else:
        data = encode(grey(value, np.uint16), format)
    assert level(data) == shown


def test_other_depths_are_scaled_by_their_own_range() -> None:
    assert level(b"P5 2 1 1023\n" + struct.pack(">HH", 512, 0)) == 128
    assert level(encode(grey(2**30, np.int32), "TIFF")) == 128
    assert level(encode(grey(200, np.int32), "TIFF")) == 0
    assert level(encode(Image.new("1", (2, 1), 1))) == 255
    assert level(encode(grey(0.5, np.float32), "TIFF")) == 128


@pytest.mark.parametrize("value", [200.0, -0.5, float("nan"), float("inf")])
def test_floats_outside_their_range_are_broken(value: float) -> None:
    with pytest.raises(BrokenSample, match="from 0 to 1") as caught:
        decode(encode(grey(value, np.float32), "TIFF"))
    assert caught.value.reason == module.NO_RANGE


def test_integers_of_unknown_range_are_broken() -> None:
    with pytest.raises(BrokenSample, match="unknown range"):
        module.to_rgb(grey(70_000, np.int32))


def test_white_is_zero_in_files_that_say_so() -> None:
    tags = ImageFileDirectory_v2()
    tags[PHOTOMETRIC_INTERPRETATION] = module.WHITE_IS_ZERO
    assert level(encode(grey(0, np.uint16), "TIFF", tiffinfo=tags)) == 255
    assert level(encode(grey(0, np.uint16), "TIFF")) == 0


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.new("RGBA", (2, 1), (255, 0, 0, 0)), {}),
        (Image.new("LA", (2, 1), (40, 0)), {}),
        (Image.new("1", (2, 1), 0), {"transparency": 0}),
        (Image.new("L", (2, 1), 7), {"transparency": 7}),
        (Image.new("RGB", (2, 1), (1, 2, 3)), {"transparency": (1, 2, 3)}),
        (Image.new("P", (2, 1), 0), {"transparency": 0}),
        (grey(300, np.uint16), {"transparency": 300}),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_what_is_transparent_shows_white(image: Image.Image, options: dict[str, Any]) -> None:
    assert level(encode(image, **options)) == 255


def test_16_bit_colours_keep_them() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = b"\0" + struct.pack(">HHH", 200, 32768, 65535)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")
    assert decode(b"\x89PNG\r\n\x1a\n" + chunks).getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_the_orientation_is_applied(orientation: int, format: str) -> None:
    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    exif = Image.Exif()
    exif[module.ExifTags.Base.Orientation] = orientation
    data = encode(Image.fromarray(pixels), format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode(data).size == ((9, 6) if orientation < 5 else (6, 9))
    assert decode(data).tobytes() == expected.convert("RGB").tobytes()


def test_damaged_exif_data_breaks_no_image() -> None:
    data = encode(Image.new("RGB", (4, 2), "red"), "JPEG", exif=b"Exif\0\0no exif data")
    assert decode(data).size == (4, 2)


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime")]
    for format in ("GIF", "PNG"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:])
        assert decode(data).getpixel((0, 0)) == (255, 0, 0)


def test_each_way_to_fail_has_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    whole = encode(Image.new("RGB", (8, 8)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for data, reason in (
        (b"", module.EMPTY),
        (b"<svg/>", module.DAMAGED),
        (whole, module.TOO_LARGE),
    ):
        with pytest.raises(BrokenSample) as caught:
            decode(data)
        assert caught.value.reason == reason
    with pytest.raises(BrokenSample) as caught:
        module.decode_file(str(tmp_path / "none.png"))
    assert caught.value.reason == module.NO_FILE
