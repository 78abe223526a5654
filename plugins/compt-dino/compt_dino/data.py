"""Crops of images for training, and whole images for measuring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from compt.data import build_source, renumber


class Crops(Dataset[Any]):
    """Images as ``global`` [2, 3, S, S] and ``local`` [N, 3, s, s] crops, uint8, by chance.

    Without local crops and at their whole size, they are ``image`` [3, S, S] and a ``label``, -1
    where it is none of ``classes``.

    Args:
        data: source of images, ``dict(type=..., ...)``.
        split: of it.
        size: height and width of global crops, and of whole images.
        local: number and size of local crops; None for whole images.
        classes: names that labels number; the split's own by default.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        split: str,
        size: int,
        local: tuple[int, int] | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        source: Any = build_source(data, ["image"])
        self.source = source.open(split, captions=False, image_size=size)
        self.classes = self.source.classes if classes is None else classes
        own = self.source.classes
        self.numbers = renumber([*range(len(own)), -1], own, self.classes)
        self.whole = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
        self.local = local
        if local is not None:
            self.global_crop = _crop(size, (0.4, 1.0))
            self.local_crop = _crop(local[1], (0.1, 0.4))

    @property
    def left_out(self) -> Any:
        """What of the source is left out."""
        return self.source.left_out

    @property
    def fingerprint(self) -> Any:
        """That of the source."""
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one image's crops, or the image and its label."""
        sample = self.source[index]
        image = sample["image"]
        if self.local is None:
            return {"image": self.whole(image), "label": int(self.numbers[sample["label"]])}
        return {
            "global": torch.stack([self.global_crop(image) for _ in range(2)]),
            "local": torch.stack([self.local_crop(image) for _ in range(self.local[0])]),
        }


def _crop(size: int, scale: tuple[float, float]) -> v2.Compose:
    """Return DINO's augmentation of one crop, without solarisation and blur."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.PILToTensor(),
        ]
    )


def normalised(images: Tensor) -> Tensor:
    """Return uint8 pixels as float32 from -1 to 1."""
    return images.float() / 127.5 - 1
