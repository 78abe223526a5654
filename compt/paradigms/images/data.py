"""Give out several random views of each image, or whole images with their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compt.paradigms.images.relabelled import Relabelled


@dataclass(frozen=True)
class View:
    """How many views of a kind are taken of an image, and how.

    Attributes:
        count: of the views.
        size: their height and width in pixels.
        transform: makes one of a PIL image in RGB, uint8 [3, size, size].
    """

    count: int
    size: int
    transform: Callable[[Any], Tensor]


def random_view(count: int, size: int, scale: tuple[float, float]) -> View:
    """Return views that are cropped, flipped, and changed in colour, by chance.

    The changes are those of DINO (Caron et al. 2021, arXiv 2104.14294, after BYOL's) without blur
    and solarisation.

    Args:
        count: of the views.
        size: height and width in pixels.
        scale: smallest and largest share of the image's area that a crop takes.
    """
    from torchvision.transforms import v2  # with torch's compiler, which a plan can do without

    steps = [
        v2.RandomResizedCrop(size, scale, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.PILToTensor(),
    ]
    return View(count, size, v2.Compose(steps))


class Views(Relabelled):
    """Images as views alone, ``{name: uint8 [count, 3, size, size]}``.

    Args:
        source: items ``dict(image=PIL RGB, label=int)``.
        views: by the name of their kind. They draw from torch's global random state, which the data
            loader sets.
    """

    def __init__(self, source: Any, views: Mapping[str, View]) -> None:
        super().__init__(source)
        self.views = dict(views)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the views of one image."""
        image = self.source[index]["image"]
        return {
            name: torch.stack([view.transform(image) for _ in range(view.count)])
            for name, view in self.views.items()
        }


class WholeImages(Relabelled):
    """Images as their centre, ``dict(image=uint8 [3, size, size], label=int)``.

    Args:
        source: items ``dict(image=PIL RGB, label=int)``.
        size: to which the shorter side is resized.
        classes: names of the classes by which labels are numbered, -1 for any other; the source's
            own by default.
    """

    def __init__(self, source: Any, size: int, classes: tuple[str, ...] | None = None) -> None:
        from torchvision.transforms import v2

        super().__init__(source, classes)
        self.transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one image and its label."""
        sample = self.source[index]
        return {"image": self.transform(sample["image"]), "label": self.label_of(sample)}
