"""Read image-text samples as pixels of the model's size, token ids and class label."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import Compose, InterpolationMode, Normalize, ToTensor


class PairDataset(Dataset[Any]):
    """Resize, crop and tokenise what a source of image-text pairs yields.

    Args:
        source: items ``dict(image=PIL RGB, captions=(str, ...), label=int)``, with at least one
            caption.
        size: height and width of the images.
        tokenize: texts -> [N, context].
        augment: smallest area of a random crop, as open_clip crops in training; None resizes the
            shorter side and crops the centre, as open_clip evaluates. A training sample draws one
            of its captions, an evaluation sample takes the first.
        resize: ``interpolation``, ``resize_mode`` and ``fill_color`` as open_clip has them; its
            defaults where they are not there. Random crops are interpolated likewise.
    """

    def __init__(
        self,
        source: Any,
        size: tuple[int, int],
        tokenize: Callable[[list[str]], Tensor],
        *,
        augment: float | None,
        resize: Mapping[str, Any] | None = None,
    ) -> None:
        self.source, self.size, self.augment = source, size, augment
        self.classes: tuple[str, ...] = getattr(source, "classes", ())
        self.transform = _to_image(size, augment, resize or {})
        self._tokenize = tokenize
        # Captions repeat at every epoch, and over the images of a class that are captioned by its
        # name: tokenised again each time, they would keep the workers from reading images.
        self._tokens = lru_cache(maxsize=100_000)(self._encode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache behind when a worker process takes a copy."""
        return {k: v for k, v in self.__dict__.items() if k != "_tokens"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tokens = lru_cache(maxsize=100_000)(self._encode)

    @property
    def broken_count(self) -> int:
        """Return how many samples of the source could not be read so far."""
        return getattr(self.source, "broken_count", 0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``image`` uint8 [3, H, W], ``text`` int64 [context] and ``label``."""
        sample = self.source[index]
        captions = sample["captions"]
        caption = random.choice(captions) if self.augment is not None else captions[0]
        return {
            "image": self._pixels(sample["image"]),
            "text": self._tokens(caption),
            "label": int(sample["label"]),
        }

    def _pixels(self, image: Image.Image) -> Tensor:
        if self.augment is not None or image.size[::-1] != self.size:
            image = self.transform(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def _encode(self, caption: str) -> Tensor:
        return self._tokenize([caption])[0]


def _to_image(size: tuple[int, int], augment: float | None, resize: Mapping[str, Any]) -> Compose:
    """Return open_clip's transform up to the image, before it makes floats of it.

    ``Clip.prepare`` does the rest on the model's device.
    """
    options = {} if augment is None else {"aug_cfg": {"scale": (augment, 1.0)}}
    complete = open_clip.image_transform(size, is_train=augment is not None, **resize, **options)
    if resize.get("interpolation") == "bilinear":
        # open_clip crops at random, and resizes to what is no square, by bicubic all the same.
        for step in complete.transforms:
            if hasattr(step, "interpolation"):
                step.interpolation = InterpolationMode.BILINEAR
    to_floats = (ToTensor, Normalize)
    return Compose([step for step in complete.transforms if not isinstance(step, to_floats)])
