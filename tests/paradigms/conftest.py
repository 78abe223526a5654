"""Pictures of all shapes, with captions and classes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

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
