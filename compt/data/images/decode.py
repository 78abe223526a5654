"""Decodes image files to what they show, in RGB with 8 bits a channel."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from compt.interfaces.foreign import check_regular
from compt.interfaces.left_out import UNREADABLE

NO_FILE = "whose image file cannot be read"
EMPTY = "with an empty image file"
DAMAGED = "whose image cannot be decoded"
TOO_LARGE = "whose image is larger than Pillow allows"
NO_RANGE = "whose image has values outside its range"

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> how the image is turned to stand upright."""
TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")
PROGRAMS = frozenset({"EPS"})
"""Formats of which Pillow has another program make an image: PostScript is one itself."""
MOST_BYTES = 2**31
"""Of an image file, above what any takes whose pixels Pillow allows."""
WHITE_IS_ZERO = 0
SIGNED = 2


class BrokenSample(Exception):
    """A sample that cannot be read, and why.

    Args:
        message: what is wrong with this one.
        reason: under which it is counted.
    """

    def __init__(self, message: str, reason: str = UNREADABLE) -> None:
        super().__init__(message)
        self.reason = reason


def decode(data: bytes) -> Image.Image:
    """Decode an image file completely to RGB, upright as its EXIF orientation says.

    Of an animation it is the first frame.

    Raises:
        BrokenSample: it is no image, damaged, cut short or too large.
    """
    if not data:
        raise BrokenSample("the file is empty", EMPTY)
    try:
        with open_image(io.BytesIO(data)) as image:
            image.load()
            return _upright(to_rgb(image), _orientation(image))
    except BrokenSample:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenSample(str(error), TOO_LARGE) from error
    except Exception as error:  # decoders raise whatever they stumble over
        raise BrokenSample(f"{type(error).__name__}: {error}", DAMAGED) from error


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image file of whatever format Pillow itself decodes.

    The format is told by the content, whatever the file is called: an image in PostScript, for
    which Pillow would run Ghostscript, is none here.
    """
    return Image.open(file, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.OPEN if name not in PROGRAMS)


def decode_file(path: str) -> Image.Image:
    """Read and decode an image file as :func:`decode` does.

    Raises:
        BrokenSample: it cannot be read, is no image, damaged, cut short or too large.
    """
    try:
        check_regular(Path(path), MOST_BYTES)
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise BrokenSample(getattr(error, "strerror", None) or str(error), NO_FILE) from error
    return decode(data)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB.

    What is transparent shows white behind it. Integers are scaled by the bit depth of the file,
    whatever values occur in it; floats are in [0, 1].

    Raises:
        BrokenSample: floats lie outside, or the bit depth cannot be known.
    """
    if image.mode.startswith("I"):
        return _on_white(_from_integers(image), _hidden(image))
    if image.mode == "F":
        return _from_floats(np.asarray(image)).convert("RGB")
    if "transparency" in image.info or image.mode in TRANSPARENT:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none."""
    with contextlib.suppress(Exception):  # damaged EXIF data does not make an image unreadable
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _from_integers(image: Image.Image) -> Image.Image:
    """Scale integers of more than 8 bits to 8."""
    values = np.asarray(image)
    full = 2**16 - 1
    inverted = False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, signed = _first(tags, BITSPERSAMPLE, 16), _first(tags, SAMPLEFORMAT, 1) == SIGNED
        full = 2 ** (bits - signed) - 1
        if bits == 32 and not signed:
            values = values.view(np.uint32)
        inverted = _first(tags, PHOTOMETRIC_INTERPRETATION, 1) == WHITE_IS_ZERO
    elif values.max(initial=0) > full:
        raise BrokenSample(f"its values go up to {values.max()}, of unknown range", NO_RANGE)
    levels = (values.clip(0, full) / full * 255).round()
    return Image.fromarray((255 - levels if inverted else levels).astype(np.uint8)).convert("RGB")


def _first(tags: Mapping[int, Any], number: int, default: int) -> int:
    """Return the first value of a TIFF tag."""
    value = tags.get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _hidden(image: Image.Image) -> np.ndarray | None:
    """Return where a grey image with more than 8 bits is transparent, None for nowhere."""
    level = image.info.get("transparency")
    return None if not isinstance(level, int) else np.asarray(image) == level


def _on_white(image: Image.Image, hidden: np.ndarray | None) -> Image.Image:
    if hidden is not None:
        image.paste("white", mask=Image.fromarray(hidden))
    return image


def _from_floats(values: np.ndarray) -> Image.Image:
    """Scale floats from 0 to 1 to 8 bits."""
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise BrokenSample("its floats are not all from 0 to 1", NO_RANGE)
    return Image.fromarray((values * 255).round().astype(np.uint8))
