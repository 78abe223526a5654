"""Pictures of all shapes, with captions and classes, and a few of the icons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compt.data.icons import drawings
from compt.data.icons.names import Icon

SIZES = [(32, 32), (37, 53), (64, 48), (200, 33), (5, 7), (33, 32), (61, 61), (1, 40)]
"""Widths and heights that are exact, odd, larger, smaller, long and one pixel wide."""


CAPTIONS = [
    "a dog",
    "a cat, asleep",
    "a dog",
    "two birds",
    "a cat on a mat",
    "birds!",
    "a réd dog",
    "nothing",
]


KIND = ["dog", "cat", "dog", "bird", "cat", "bird", "dog", ""]


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> dict[str, str]:
    """Write a table of eight pictures of all shapes, of which the last has no class."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = ["image,caption,kind"]
    for i, size in enumerate(SIZES):
        picture(i, size).save(folder / f"{i}.png")
        lines.append(f'{i}.png,"{CAPTIONS[i]}",{KIND[i]}')
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return dict(
        type="csv", train=str(folder / "train.csv"), val=str(folder / "val.csv"), label_key="kind"
    )


@pytest.fixture(scope="session")
def icon_folder(tmp_path_factory) -> Path:
    """The icons with five head words: 561 to train on, 75 of new concepts, 32 of a new vendor."""
    pytest.importorskip("resvg_py")
    whole, _ = drawings._icon_folder()
    folder = tmp_path_factory.mktemp("icons")
    for path in drawings._svg_files(whole):
        if Icon(path).head in ("account", "arrow", "calendar", "clock", "file"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(whole / path)
    return folder


@pytest.fixture
def few_icons(icon_folder, monkeypatch) -> None:
    """Let the package of icons have these alone, as two thousand are measured for seconds."""
    monkeypatch.setenv("COMPT_CACHE_DIR", str(icon_folder.with_name("drawn")))
    monkeypatch.setattr(drawings, "_icon_folder", lambda: (icon_folder, "1.0"))
