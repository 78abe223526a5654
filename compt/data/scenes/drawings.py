"""Draws the scenes of a split once and keeps them, with their captions, in verified files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from compt.data._cache import once, progress
from compt.data.scenes.icons import cell_size, inks
from compt.data.scenes.layout import EMPTY, Icons
from compt.errors import DataError
from compt.files import sha256
from compt.writing import atomic, sweep

CHUNK_MB = 16
"""Pixels that are drawn at a time."""
CAPTIONS_KB = 0.3
"""Captions of a scene take at most about as much."""
SCENES_A_SECOND, MB_A_SECOND = 8_000, 100
"""How fast one core writes captions and draws, about."""
WORTH_SAYING_MB = 50


@dataclass(frozen=True)
class Drawn:
    """The files of a split.

    ``pixels`` is uint8 [N, size, size, 3], as NumPy saves arrays. ``captions`` has a line for each
    scene. ``digests`` are their SHA-256.
    """

    pixels: Path
    captions: Path
    digests: tuple[str, str]

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """Map pixels and the bytes of the captions into memory, read-only.

        Raises:
            DataError: a file is gone.
        """
        try:
            pixels: np.ndarray = np.load(self.pixels, mmap_mode="r")
            return pixels, np.memmap(self.captions, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise DataError(
                "The cache of drawn scenes was removed while in use.",
                where=str(self.pixels),
                do="Start again: it is redrawn.",
            ) from error


def drawn(
    name: str,
    cache_dir: Path | None,
    image_size: int,
    scenes: np.ndarray,
    icons: Icons,
    lines: Callable[[], Iterable[str]],
) -> Drawn:
    """Return the files of a split, made now unless the cache holds them undamaged.

    Several processes may call this at once: one draws, the others wait.

    Args:
        name: of the files, which tells other scenes and captions apart.
        cache_dir: where they are kept.
        image_size: height and width in pixels.
        scenes: see :func:`compt.data.scenes.layout.lay_out`.
        icons: those that the scenes show.
        lines: returns the captions, a line for each scene.

    Raises:
        DataError: the cache cannot be written, or has no room.
    """
    megabytes = len(scenes) * (image_size**2 * 3 / 1e6 + CAPTIONS_KB / 1e3)

    def make(file: Path) -> Drawn:
        sweep(file.parent, f".{file.stem}*.tmp")
        _announce(file.parent, len(scenes), megabytes)
        captions = file.with_suffix(".tsv")
        _write_lines(captions, len(scenes), lines())
        _write_pixels(file, scenes, icons, image_size)
        digests = _digest(file), _digest(captions)
        with atomic(_facts(file)) as beside:
            beside.write_text(json.dumps({"sha256": digests}), "utf-8")
        return Drawn(file, captions, digests)

    return once(f"scenes/{name}.npy", cache_dir, find=_intact, make=make, megabytes=megabytes)


def _facts(file: Path) -> Path:
    return file.with_suffix(".json")


def _intact(file: Path) -> Drawn | None:
    """Return what the cache holds, None if that is nothing or damaged."""
    captions = file.with_suffix(".tsv")
    try:
        wanted = json.loads(_facts(file).read_text("utf-8"))["sha256"]
        digests = _digest(file), _digest(captions)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Drawn(file, captions, digests) if wanted == list(digests) else None


def _digest(file: Path) -> str:
    """Hash a file once a process, unless it changes: stages open their splits again and again."""
    facts = file.stat()
    return _hashed(file, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=32)
def _hashed(file: Path, size: int, changed: int) -> str:
    return sha256(file)


def _announce(folder: Path, count: int, megabytes: float) -> None:
    """Say what is about to be drawn, where it takes a while, and raise OSError without room."""
    if shutil.disk_usage(folder).free < megabytes * 1e6:
        raise OSError(28, "No space left on device")
    if megabytes > WORTH_SAYING_MB:
        seconds = count / SCENES_A_SECOND + megabytes / MB_A_SECOND
        print(
            f"Drawing {count:,} scenes, once: about {seconds:.0f} s "
            f"and {megabytes:,.0f} MB in {folder}.",
            file=sys.stderr,
        )


def _write_lines(file: Path, count: int, lines: Iterable[str]) -> None:
    with (
        atomic(file) as beside,
        beside.open("w", encoding="utf-8", newline="\n") as out,
        progress("describing scenes", count) as advance,
    ):
        for number, line in enumerate(lines, 1):
            out.write(f"{line}\n")
            if number % 1000 == 0:
                advance(number)


def _write_pixels(file: Path, scenes: np.ndarray, icons: Icons, image_size: int) -> None:
    shape = (len(scenes), image_size, image_size, 3)
    rows = max(1, int(CHUNK_MB * 1e6 / (image_size**2 * 3)))
    with atomic(file) as beside, beside.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        with progress("drawing scenes", len(scenes)) as advance:
            for start in range(0, len(scenes), rows):
                out.write(draw(scenes[start : start + rows], icons, image_size).tobytes())
                advance(start + rows)


def draw(scenes: np.ndarray, icons: Icons, image_size: int) -> np.ndarray:
    """Draw scenes on white, in whole numbers alone, so that every machine draws the same.

    Returns:
        uint8 [N, image_size, image_size, 3].
    """
    cell, palette = cell_size(image_size), inks()
    cells = np.full((len(scenes), 2, cell, 2, cell, 3), 255, np.uint8)
    for is_large, ink in enumerate(icons.ink):
        is_shown = (scenes["icon"] != EMPTY) & (scenes["large"] == bool(is_large))
        scene, place = np.nonzero(is_shown)
        shown, size = scenes[scene, place], ink.shape[1]
        rows, columns = (
            (shown[axis].astype(np.int64) * (cell - size + 1) // 256)[:, None] + np.arange(size)
            for axis in ("y", "x")
        )
        number, across, down = (of[:, None, None] for of in (scene, place % 2, place // 2))
        coloured = palette[shown["colour"][:, None, None], ink[shown["icon"]]]
        cells[number, down, rows[:, :, None], across, columns[:, None, :]] = coloured
    images = np.full((len(scenes), image_size, image_size, 3), 255, np.uint8)
    images[:, : 2 * cell, : 2 * cell] = cells.reshape(len(scenes), 2 * cell, 2 * cell, 3)
    return images
