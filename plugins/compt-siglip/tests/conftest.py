"""Eight noisy pictures with captions and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

CAPTIONS = (
    "a dog",
    "a cat, asleep",
    "a dog",
    "two birds",
    "a cat on a mat",
    "birds!",
    "one more dog",
    "nothing",
)
KINDS = ("dog", "cat", "dog", "bird", "cat", "bird", "dog", "")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Write a table of eight pictures.

    Two captions are equal, and the last picture has no class.
    """
    folder = tmp_path_factory.mktemp("pairs")
    random, lines = np.random.default_rng(0), ["image,caption,kind"]
    for i, (caption, kind) in enumerate(zip(CAPTIONS, KINDS, strict=True)):
        Image.fromarray(random.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
        lines.append(f'{i}.png,"{caption}",{kind}')
    table = folder / "pairs.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return dict(type="csv", train=str(table), val=str(table), label_key="kind")
