"""Draws the icons of mkdocs-material once and keeps them in a verified file."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compt.data._cache import once, progress
from compt.data.icons.names import VENDORS
from compt.errors import DataError
from compt.files import sha256
from compt.writing import atomic, sweep

FORMAT = 1
INSTALL = 'pip install "compt[demo]"'


@dataclass(frozen=True)
class Drawings:
    """All icons as drawn.

    ``paths`` are relative to the folder of icons and sorted; row i of the array in ``file`` (uint8
    [N, size, size], grey, white is 255) is ``paths[i]``, plain white where it is in ``skipped``.
    ``digests`` are hashes of the rows.
    """

    file: Path
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    skipped: frozenset[str]

    def open(self) -> np.ndarray:
        """Map the array into memory, read-only.

        Raises:
            DataError: the file is gone.
        """
        try:
            images: np.ndarray = np.load(self.file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(
                "The cache of drawn icons was removed while in use.",
                where=str(self.file),
                do="Start again: it is redrawn.",
            ) from error
        return images


def drawings(image_size: int, cache_dir: str | Path | None = None) -> Drawings:
    """Return all icons at a size, drawn now if the cache does not hold them undamaged.

    Several processes may call this at once: one draws, the others wait.

    Raises:
        DataError: mkdocs-material or resvg-py is not installed, or the cache cannot be written.
    """
    root, version = _icon_folder()
    paths = tuple(sorted(_svg_files(root)))
    if not paths:
        raise DataError(
            "The package mkdocs-material has no icons.",
            where=str(root),
            do=f"Reinstall it: {INSTALL}",
        )
    names = hashlib.sha256("\n".join(paths).encode()).hexdigest()
    return once(
        f"icons/{version}-{image_size}px-v{FORMAT}-{names[:12]}.npy",
        cache_dir,
        find=lambda file: _intact(file, paths),
        make=lambda file: _draw_all(root, paths, image_size, file),
        megabytes=len(paths) * image_size**2 / 1e6,
    )


def _icon_folder() -> tuple[Path, str]:
    """Find the folder of icons of the installed package, and its version."""
    try:
        package = metadata.distribution("mkdocs-material")
    except metadata.PackageNotFoundError as error:
        raise DataError(
            "The icons come with the package mkdocs-material, which is not installed.", do=INSTALL
        ) from error
    return Path(str(package.locate_file("material/templates/.icons"))), package.version


def _svg_files(root: Path) -> Iterator[str]:
    """Yield the path of every vendor's SVG file, relative to the folder of icons."""
    # A Path for each of 14,000 files takes a quarter of a second, and a stage opens icons often.
    for vendor in VENDORS:
        for folder, _, names in os.walk(root / vendor):
            below = Path(folder).relative_to(root).as_posix()
            yield from (f"{below}/{name}" for name in names if name.endswith(".svg"))


def _intact(file: Path, paths: Sequence[str]) -> Drawings | None:
    """Return what the cache holds, None if that is nothing or damaged."""
    try:
        facts: dict[str, Any] = json.loads(file.with_suffix(".json").read_text("utf-8"))
        if facts["sha256"] != sha256(file) or len(facts["pictures"]) != len(paths):
            return None
        return Drawings(file, tuple(paths), tuple(facts["pictures"]), frozenset(facts["skipped"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _draw_all(root: Path, paths: Sequence[str], size: int, file: Path) -> Drawings:
    """Draw every icon and write array and facts, while the caller holds the lock."""
    sweep(file.parent, f".{file.stem}*.tmp")
    draw = _drawer(size)
    digests: list[str] = []
    skipped: list[str] = []

    with atomic(file) as beside, beside.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), size, size)}
        np.lib.format.write_array_header_1_0(out, header)
        with progress("drawing icons", len(paths)) as advance:
            for done, path in enumerate(paths, 1):
                image = draw(root / path)
                if image is None:
                    skipped.append(path)
                    image = np.full((size, size), 255, np.uint8)
                digests.append(hashlib.sha256(image.tobytes()).hexdigest()[:16])
                out.write(image.tobytes())
                advance(done)

    # Caches of older versions have the key "pictures", and drawing anew takes up to a minute.
    facts = {"sha256": sha256(file), "skipped": skipped, "pictures": digests}
    with atomic(file.with_suffix(".json")) as beside:
        beside.write_text(json.dumps(facts), "utf-8")
    return Drawings(file, tuple(paths), tuple(digests), frozenset(skipped))


def _drawer(size: int) -> Callable[[Path], np.ndarray | None]:
    """Return what draws an SVG file, centred on white.

    It returns uint8 [size, size], or None where a file cannot be drawn or is empty.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise DataError(
            f"Icons are drawn with resvg-py, which cannot be loaded: {error}.", do=INSTALL
        ) from error

    def draw(path: Path) -> np.ndarray | None:
        try:
            svg = path.read_text("utf-8")
            png = svg_to_bytes(
                svg_string=svg, background="white", width=size, height=size, skip_system_fonts=True
            )
            drawn = Image.open(io.BytesIO(bytes(png))).convert("L")
        except (ValueError, OSError):
            return None
        canvas = Image.new("L", (size, size), 255)
        canvas.paste(drawn, ((size - drawn.width) // 2, (size - drawn.height) // 2))
        image = np.asarray(canvas)
        return image if (image < 255).any() else None

    return draw
