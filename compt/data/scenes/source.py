"""Scenes of one to four coloured icons, for many epochs over little data or few over much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from compt.data.icons.source import IconSource
from compt.data.scenes.captions import NUM_CAPTIONS, Object, Sentence, describe, swapped
from compt.data.scenes.chance import Dice, key_for
from compt.data.scenes.drawings import drawn
from compt.data.scenes.icons import VENDORS, open_icons
from compt.data.scenes.layout import COLOURS, EMPTY, FORMAT, SPLITS, lay_out
from compt.errors import ConfigError
from compt.interfaces import Images, ImageSource
from compt.interfaces.fingerprint import hash_of
from compt.registry import Range

DEFAULT_SIZE = 48
SMALLEST, LARGEST = 16, 1024
NUM_SCENES, NUM_HELD_OUT = 100_000, 2_000


class SceneSource(ImageSource):
    """Scenes of one to four icons of named colours, sizes and places, with four captions each.

    The icons are those that ``icons`` draws of material and octicons. A caption names some or all
    of a scene's icons in any order, with or without colour, size and place, or says how one stands
    to another; the first names every colour, and a size, place or relation. In held-out splits
    ``negative`` is the first caption with the colours of two icons exchanged, or with one word for
    size, place or relation turned into its opposite, and is wrong of the scene.

    * ``train``: an icon's concept (see ``icons``) has one of ten colours that it never has here.
    * ``seen``: new scenes of the icons and colours of 'train'. A scene is of this split or of
      'train' by a hash of what it shows, so that none is of both.
    * ``combination``: every icon is in the colour that its concept never has in 'train'.
    * ``icon``: icons of concepts that 'train' has not, in any colour.

    With mkdocs-material 9.8.2 there are 7,093 icons of 4,268 concepts in 'train', and 972 of 565
    in 'icon'. Half of the captions have 9 words or fewer, the longest 33; they are made of
    2,316 words. Chance is 0.5 % for recall at 10 among 2,000 scenes, 4.605 nats for the loss of 100
    pairs.

    Scenes are drawn once (100,000 at 48 px take 20 s and 0.72 GB) and kept in the cache folder; the
    environment variable COMPT_CACHE_DIR moves it. Pixels and captions are decided by the options
    and the icons' drawings alone, on every machine.

    Args:
        num_scenes: how many 'train' has. Fewer are the first of more.
        num_held_out: how many each of the other splits has.
        image_size: height and width in pixels; None for what models take, 48 where that is not
            known.
        seed: of all scenes and captions.
        cache_dir: where the drawings are kept.
        num_samples: size of 'train', for plans; ``num_scenes`` where it is not said.

    Raises:
        ConfigError: there is no such split or size.
        DataError: on opening, mkdocs-material or resvg-py is missing, or the cache cannot be
            written.
    """

    licence = "; ".join(f"{name}: {IconSource.LICENCES[name]}" for name in VENDORS)
    provides = frozenset({"image", "captions", "negative"})
    splits = SPLITS

    def __init__(
        self,
        *,
        num_scenes: Annotated[int, Range(minimum=1, maximum=10**8)] = NUM_SCENES,
        num_held_out: Annotated[int, Range(minimum=1, maximum=10**8)] = NUM_HELD_OUT,
        image_size: Annotated[int, Range(minimum=SMALLEST, maximum=LARGEST)] | None = None,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        num_samples: int | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples)
        self.num_scenes, self.num_held_out = num_scenes, num_held_out
        self.image_size, self.seed, self.cache_dir = image_size, seed, cache_dir

    def num_samples(self, split: str) -> int | None:
        """Return the number of samples of a split."""
        if split == "train":
            return self.declared_samples or self.num_scenes
        return self.num_held_out

    def open(self, split: str, *, captions: bool = True, image_size: int | None = None) -> Scenes:
        """Draw the scenes of a split, unless the cache holds them, and open it."""
        self.check_split(split)
        sizes = (self.image_size, image_size, DEFAULT_SIZE)
        return Scenes(
            split,
            self.num_scenes if split == "train" else self.num_held_out,
            seed=self.seed,
            image_size=next(size for size in sizes if size is not None),
            cache_dir=self.cache_dir,
        )


class Scenes(Images):
    """One split of the scenes.

    Args:
        split: its name.
        count: how many scenes it has.
        seed: of scenes and captions.
        image_size: height and width in pixels.
        cache_dir: where the drawings are kept.
    """

    def __init__(
        self,
        split: str,
        count: int,
        *,
        seed: int = 0,
        image_size: int = DEFAULT_SIZE,
        cache_dir: str | Path | None = None,
    ) -> None:
        if not SMALLEST <= image_size <= LARGEST:
            raise ConfigError(
                f"image_size={image_size!r} is not a number of pixels from "
                f"{SMALLEST} to {LARGEST}.",
                where="scenes",
            )
        folder = None if cache_dir is None else Path(cache_dir)
        icons = open_icons(image_size, folder)["icon" if split == "icon" else "train"]
        self.split = split
        self._layout = lay_out(split, count, seed, icons)
        self._names, self._held_out_colours = icons.names, icons.held_out_colours
        self._key = key_for("captions", FORMAT, seed, split)
        content = hash_of(FORMAT, self._key, self._layout, self._names, icons.shapes, image_size)
        name = f"{split}-{count}x{image_size}px-{content[:12]}"
        self._files = drawn(name, folder, image_size, self._layout, icons, self._lines)
        self._map()

    def _map(self) -> None:
        """Map pixels and captions into memory, and find where each scene's captions end."""
        self._pixels, self._text = self._files.open()
        self._ends = np.flatnonzero(self._text == ord("\n"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is mapped behind, as a worker process maps it anew."""
        mapped = ("_pixels", "_text", "_ends")
        return {k: v for k, v in self.__dict__.items() if k not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Number of scenes, and a hash of pixels and captions."""
        return {"samples": len(self), "content": hash_of(self._files.digests)}

    def __len__(self) -> int:
        return len(self._layout)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one scene and its captions, held out also a wrong one, ``negative``."""
        pixels, texts = self._pixels[index], self._texts(index)
        sample = {
            "image": Image.fromarray(np.asarray(pixels)),
            "captions": texts[:NUM_CAPTIONS],
            "label": -1,
        }
        if self.split != "train":
            sample["negative"] = texts[-1]
        return sample

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of a scene."""
        return self._texts(index)[:NUM_CAPTIONS]

    def _texts(self, index: int) -> tuple[str, ...]:
        """Return the captions of a scene, held out also the first one with words swapped."""
        index = range(len(self))[index]
        start = self._ends[index - 1] + 1 if index else 0
        return tuple(self._text[start : self._ends[index]].tobytes().decode().split("\t"))

    def _lines(self) -> Iterator[str]:
        for index in range(len(self)):
            texts = sentences = self.sentences(index)
            if self.split != "train":
                texts = [*sentences, self.swapped(index, sentences[0])]
            yield "\t".join(map(str, texts))

    def sentences(self, index: int) -> list[Sentence]:
        """Return the captions of a scene as what they mention."""
        return describe(self.objects(index), Dice(self._key, index))

    def swapped(self, index: int, sentence: Sentence) -> Sentence:
        """Return the first caption of a scene with words swapped, so that it is wrong."""
        return swapped(sentence, Dice(key_for("negative", self._key), index))

    def objects(self, index: int) -> list[Object]:
        """Return the icons of a scene, row by row."""
        colours = (*COLOURS, "")
        return [
            Object(
                name=self._names[icon],
                colour=colours[colour],
                is_large=large,
                row=cell // 2,
                column=cell % 2,
                held_out_colour=colours[self._held_out_colours[icon]],
            )
            for cell, (icon, colour, large, _, _) in enumerate(self._layout[index].tolist())
            if icon != EMPTY
        ]
