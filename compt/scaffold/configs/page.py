"""Draw a page of samples as one image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from compt.scaffold.configs.looking import Shown
from compt.writing import atomic

COLUMNS, SIDE, GAP, TEXT_LINES, LINE = 6, 160, 16, 3, 15
"""Columns, and pixels of an image's sides and of what stands between and below them."""
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
"""Comes with matplotlib, and has more letters than Pillow's own."""


def write_page(samples: Sequence[Shown], file: Path) -> None:
    """Write samples in rows, each image with the beginning of its caption below it."""
    text_height = TEXT_LINES * LINE if any(sample.text for sample in samples) else 0
    num_rows = -(-len(samples) // COLUMNS)
    cell = SIDE + GAP, SIDE + GAP + text_height
    num_columns = min(COLUMNS, len(samples))
    page = Image.new("RGB", (GAP + num_columns * cell[0], GAP + num_rows * cell[1]), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.truetype(str(FONT), 11)
    for index, sample in enumerate(samples):
        left = GAP + index % COLUMNS * cell[0]
        top = GAP + index // COLUMNS * cell[1]
        image = _fitted(sample.image)
        page.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
        draw.rectangle((left - 1, top - 1, left + SIDE, top + SIDE), outline="#cccccc")
        for line, text in enumerate(_lines(sample.text)):
            draw.text((left, top + SIDE + 2 + line * LINE), text, fill="black", font=font)
    with atomic(file) as beside:
        page.save(beside, "PNG")


def _fitted(image: Image.Image) -> Image.Image:
    """Return an image at the size of its place, small ones enlarged pixel by pixel."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.resize((width, height), method)


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, 25, max_lines=TEXT_LINES, placeholder=" ...")
