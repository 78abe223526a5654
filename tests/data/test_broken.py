from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from compt.data.images.broken import BrokenSample, Sample, SkipBroken, decode
from compt.errors import DataError

from .conftest import picture


class Numbers(SkipBroken):
    """Pictures of their index, some of them broken; keeps how often each was read."""

    def __init__(self, length: int, broken: set[int], max_broken: float = 0.5) -> None:
        super().__init__(length, max_broken=max_broken)
        self.bad = broken

    def where(self, index: int) -> str:
        return f"number {index}"

    def read(self, index: int) -> Sample:
        image = decode(b"" if index in self.bad else picture(index))
        return {"image": image, "captions": (str(index),), "label": index}


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def test_the_next_readable_sample_takes_the_place() -> None:
    data = Numbers(10, {3, 4, 9})
    assert [data[i]["label"] for i in range(10)] == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert data.broken_count == 3
    assert [data[i]["label"] for i in (3, -1)] == [5, 0]
    assert data.broken_count == 3
    with pytest.raises(IndexError):
        data[10]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_count_each_broken_sample_once(method: str) -> None:
    data = Numbers(40, {3, 4, 17, 30})
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=method)
    for _ in range(2):
        labels = [sample["label"] for sample in loader]
        assert labels[2:6] == [2, 5, 5, 5]
        assert data.broken_count == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_samples_stop_the_run(workers: int) -> None:
    samples = iter(
        DataLoader(Numbers(40, {3, 10, 21, 30}, 0.05), batch_size=None, num_workers=workers)
    )
    with pytest.raises(DataError, match="3 of 40 samples so far cannot be read") as caught:
        list(samples)
    if workers:
        samples._shutdown_workers()  # left to the garbage collector it takes 5 s a worker
    assert "max_broken" in str(caught.value)
    assert str(caught.value).count("number ") == 3


def test_as_many_as_allowed_do_not_stop_it() -> None:
    data = Numbers(40, {3, 10}, 0.05)
    assert len([data[i] for i in range(40)]) == 40


def test_nothing_readable_stops_soon() -> None:
    data = Numbers(100_000, set(range(100_000)), 1.0)
    with pytest.raises(DataError, match="100 samples in a row"):
        data[7]
    assert data.broken_count == 100


def test_check_allows_for_chance_unless_it_reads_all() -> None:
    few = Numbers(10_000, set(range(0, 10_000, 70)), 0.01)  # 1.4 %
    assert few.check() < 7
    with pytest.raises(DataError, match="tried cannot be read"):
        Numbers(10_000, set(range(0, 10_000, 3)), 0.01).check()
    with pytest.raises(DataError, match="2 of 100 samples tried"):
        Numbers(100, {40, 70}, 0.01).check()
    assert Numbers(100, {40}, 0.01).check() == 1
    assert Numbers(1, set(), 0.01).check() == 0


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images_cut_short_are_broken(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encode(noise, format)
    assert decode(data).size == (64, 64)
    for share in (0.01, 0.5, 0.9):
        with pytest.raises(BrokenSample):
            decode(data[: int(share * len(data))])


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_image_is_broken(data: bytes) -> None:
    with pytest.raises(BrokenSample):
        decode(data)


def test_modes_become_rgb() -> None:
    def pixel(image: Image.Image, format: str = "PNG", **options: Any) -> tuple[int, ...]:
        decoded = decode(encode(image, format, **options))
        assert decoded.mode == "RGB"
        return decoded.getpixel((0, 0))  # type: ignore[return-value]

    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(palette) == (10, 20, 30)
    assert pixel(palette, transparency=1) == (255, 255, 255)
    assert pixel(palette, transparency=b"\xff\x00") == (255, 255, 255)
    assert pixel(Image.new("RGBA", (4, 4), (10, 20, 30, 0))) == (255, 255, 255)
    assert pixel(Image.new("RGBA", (4, 4), (0, 0, 0, 128))) == (127, 127, 127)
    assert pixel(Image.new("LA", (4, 4), (40, 255))) == (40, 40, 40)
    assert pixel(Image.new("L", (4, 4), 40)) == (40, 40, 40)
    assert pixel(Image.new("1", (4, 4), 1)) == (255, 255, 255)
    assert pixel(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG") == (255, 255, 255)
    assert pixel(Image.fromarray(np.full((4, 4), 65535, np.uint16))) == (255, 255, 255)
    assert pixel(Image.fromarray(np.full((4, 4), 257 * 9, np.uint16))) == (9, 9, 9)
    assert pixel(Image.fromarray(np.full((4, 4), 0.2, np.float32)), "TIFF") == (51, 51, 51)
