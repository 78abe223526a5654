"""About 14,300 icons with their names, for first runs and tests without a download."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from compt.data.icons.drawings import Drawings, drawings
from compt.data.icons.names import SPLITS, Icon, Split, divide
from compt.data.images.broken import Sample
from compt.errors import ConfigError, did_you_mean
from compt.interfaces import Images, ImageSource
from compt.interfaces.fingerprint import hash_of
from compt.interfaces.left_out import MAX_BROKEN, LeftOut
from compt.registry import Range

DEFAULT_SIZE = 32
NOT_DRAWN = "that cannot be drawn or are empty"


class IconSource(ImageSource):
    """Icons of four vendors, dark on white, captioned by their file names.

    The SVG files are those that the package mkdocs-material ships. They are drawn once (5 s and 15
    MB at 32 px, 44 s and 0.7 GB at 224 px, on one core) and kept in the cache folder; the
    environment variable COMPT_CACHE_DIR moves it.

    * ``train``: material, octicons and simple (brand logos) without the concepts held out. The
      label is the head word's class, the same as in 'concept'.
    * ``concept``: things never seen. A concept is a name without style words, levels and word
      borders; all icons of a concept are on one side, 12 % of those that are no brand logo on this
      one. The class is the head word, the first of the name: those with 12 icons in train and 2
      here. Icons with another head word have label -1 and serve retrieval only.
    * ``vendor``: things seen, drawn by a vendor never seen (fontawesome). The class is the whole
      name: those that material has in train too. Each drawing of a name (solid, regular, brands) is
      a sample.

    No image of a held-out split occurs in train, pixel for pixel.

    Measured at 32 px with mkdocs-material 9.8.2 (14,340 icons, all of which could be drawn; the
    2,356 of them that no split holds are nearly all fontawesome names that train has not); the
    floor is 1-nearest-neighbour on 16x16 pixels, which a CLIP must beat to have learnt more than
    shapes:

    ======= ======= ================================= ======= ====== =====
    split   samples of them                           classes chance floor
    ======= ======= ================================= ======= ====== =====
    train    10,555 3,314 with a class; simple 3,369       94
    concept     977 564 with a class, 568 concepts         94  1.1 % 69 %
    vendor      452 all with a class                      395  0.3 % 29 %
    ======= ======= ================================= ======= ====== =====

    Args:
        image_size: height and width in pixels; None for what models take, 32 where that is not
            known. The fewer, the more icons look the same and are left out of the held-out splits.
        cache_dir: where the drawings are kept.
        samples: how many of the icons in 'train' to keep, for many epochs over little data; the
            same ones each time, more of them hold all that fewer hold. None for all. Held-out
            splits stay whole.
        max_broken: share of the icons that may be impossible to draw.
        num_samples: size of 'train', for plans.

    Raises:
        ConfigError: there is no such split or size, or too few icons.
        DataError: on opening, mkdocs-material or resvg-py is missing, or the cache cannot be
            written.
    """

    LICENCES = {
        "material": "Apache-2.0 (Pictogrammers, Google)",
        "fontawesome": "CC-BY-4.0 (Font Awesome Free)",
        "octicons": "MIT (GitHub)",
        "simple": "CC0-1.0 (Simple Icons); the logos are trademarks of their owners",
    }

    licence = "; ".join(f"{name}: {licence}" for name, licence in LICENCES.items())
    provides = frozenset({"image", "captions", "label"})
    splits = SPLITS

    def __init__(
        self,
        *,
        image_size: Annotated[int, Range(minimum=1, maximum=4096)] | None = None,
        cache_dir: str | Path | None = None,
        samples: Annotated[int, Range(minimum=1)] | None = None,
        max_broken: Annotated[float, Range(minimum=0, maximum=1)] = MAX_BROKEN,
        num_samples: int | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples, max_broken=max_broken)
        self.image_size, self.cache_dir, self.samples = image_size, cache_dir, samples

    def open(self, split: str, *, captions: bool = True, image_size: int | None = None) -> Icons:
        """Draw the icons, unless the cache holds them, and open a split."""
        self.check_split(split)
        sizes = (self.image_size, image_size, DEFAULT_SIZE)
        size = next(size for size in sizes if size is not None)
        return Icons(
            split,
            image_size=size,
            cache_dir=self.cache_dir,
            samples=self.samples,
            max_broken=self.max_broken,
        )


class Icons(Images):
    """One split of the icons.

    Arguments and errors are those of :class:`IconSource`.
    """

    def __init__(
        self,
        split: str,
        *,
        image_size: int = DEFAULT_SIZE,
        cache_dir: str | Path | None = None,
        samples: int | None = None,
        max_broken: float = MAX_BROKEN,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(
                f"Icons have no split '{split}'.{did_you_mean(split, SPLITS)}",
                do=f"Available: {', '.join(SPLITS)}.",
            )
        if not isinstance(image_size, int) or not 8 <= image_size <= 1024:
            raise ConfigError(
                f"image_size={image_size!r} is not a number of pixels from 8 to 1024.",
                where="icons",
            )
        self._drawings = drawings(image_size, cache_dir)
        icons_of_split = _divided(self._drawings)[split]
        self.classes = icons_of_split.classes
        self.skipped = len(self._drawings.skipped)
        """How many icons could not be drawn or are empty."""
        chosen = _chosen(len(icons_of_split.rows), samples if split == "train" else None)
        self._rows = np.array(icons_of_split.rows, np.int64)[chosen]
        self.labels = np.array(icons_of_split.labels, np.int64)[chosen]
        self.max_broken = max_broken
        self._pixels = self._drawings.open()

    @property
    def left_out(self) -> LeftOut:
        """The icons of all splits that could not be drawn or are empty."""
        result = super().left_out
        result.total += self.skipped
        result.sample(NOT_DRAWN, count=self.skipped)
        return result

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Number, names, classes and drawings of the icons."""
        names = [self._drawings.paths[row] for row in self._rows]
        drawn = [self._drawings.digests[row] for row in self._rows]
        content = hash_of(names, drawn, self.labels, self.classes)
        return {"samples": len(self), "content": content}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped pixels behind, as a worker process maps them anew."""
        return {k: v for k, v in self.__dict__.items() if k != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = self._drawings.open()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one icon, its captions and its class."""
        row = self._rows[index]
        image = Image.fromarray(np.asarray(self._pixels[row])).convert("RGB")
        return {
            "image": image,
            "captions": self.captions(index),
            "label": int(self.labels[index]),
        }

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of a sample."""
        return self.icon(index).captions

    def icon(self, index: int) -> Icon:
        """The vendor, name and concept of a sample."""
        return Icon(self._drawings.paths[self._rows[index]])


@lru_cache(maxsize=4)
def _divided(drawn: Drawings) -> Mapping[str, Split]:
    """Divide all icons, once a process, as a stage opens its splits again and again."""
    icons = [None if path in drawn.skipped else Icon(path) for path in drawn.paths]
    return divide(icons, drawn.digests)


def _chosen(count: int, samples: int | None) -> np.ndarray:
    """Choose which of so many samples to keep, in their order."""
    if samples is None:
        return np.arange(count)
    if not isinstance(samples, int) or not 1 <= samples <= count:
        raise ConfigError(
            f"samples={samples!r} is not a number of icons from 1 to {count}.", where="icons"
        )
    return np.sort(np.random.default_rng(0).permutation(count)[:samples])
