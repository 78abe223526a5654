"""Train on several views of images, and measure on whole ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from compt.interfaces import Batch, Images
from compt.interfaces.nested import map_tensors
from compt.paradigms._shared import Agreement, Sourced, check_image_size
from compt.paradigms.images.data import View, Views, WholeImages
from compt.registry import DATA


class ImageParadigm(Sourced, ABC):
    """A base of paradigms that learn from several random views of each image.

    It opens the training split as :class:`Views`, other splits and the reference as
    :class:`WholeImages` with labels of the training split's classes, scales pixels, and makes the
    batches that plans are made with. A subclass writes ``views``, and calls ``hold_image_size`` in
    ``build_model``; see ``docs/plugins.md``.

    Args:
        data: a source of images, see :mod:`compt.data`; labels are for metrics alone.
    """

    needs = (("image",),)
    example = "data=dict(type='icons')"

    def __init__(self, *, data: Annotated[Mapping[str, Any], DATA] | None = None) -> None:
        self._use(data)
        self._input = Agreement()

    @abstractmethod
    def views(self) -> Mapping[str, View]:
        """Return the kinds of views of an image that is trained on, by name."""

    @property
    def image_size(self) -> int:
        """Return the height and width that the members take, in pixels."""
        size: int = self._input["image size"]
        return size

    def hold_image_size(self, member: str, size: int) -> None:
        """Remember the first member's image size, and raise ConfigError where a later one differs.

        Args:
            member: its name.
            size: height and width in pixels.
        """
        check_image_size(member, (size, size))
        self._input.hold(member, "image size", size)

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Open the training split as views, others as whole images."""
        if split != "train":
            return self.build_reference(split)
        return Views(self._open(split), self.views())

    def build_reference(self, split: str) -> Dataset[Any]:
        """Open any split as whole images, with labels of the training split's classes."""
        classes = None if split == "train" else self._open("train").classes
        return WholeImages(self._open(split), self.image_size, classes)

    def _open(self, split: str) -> Images:
        images = self.open_images(split, captions=False, image_size=self.image_size)
        images.check()
        return images

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return uint8 pixels as float32 from -1 to 1."""
        prepared: Batch = map_tensors(_scaled, batch)
        return prepared

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return grey views on the model's device."""
        device = next(model.parameters()).device
        return {
            name: torch.zeros(batch_size, view.count, 3, view.size, view.size, device=device)
            for name, view in self.views().items()
        }


def _scaled(values: Tensor) -> Tensor:
    return values.float() / 127.5 - 1 if values.dtype == torch.uint8 else values
