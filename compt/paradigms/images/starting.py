"""Fit sizes of images and batches to the images that a first config is written for."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from compt.interfaces import ConfigDraft, SeenData, Starter

SIDES = (32, 48, 64, 96, 128, 160, 192, 224)
"""Sides of images that are chosen from, in pixels."""


@dataclass(frozen=True)
class Pixels:
    """Sides of images and patches, with a comment on each."""

    image_size: int
    image_size_why: str
    patch: int
    patch_why: str

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return int((self.image_size // self.patch) ** 2)


class ImageStarter(Starter, ABC):
    """A base of starters for paradigms that learn from images."""

    needs: ClassVar[tuple[Collection[str], ...]] = (("image",),)
    data_noun = "images"
    example_data = "icons"
    largest_image: ClassVar[Mapping[str, int]] = {"tiny": 64, "small": 128, "base": 224}
    """Pixels of a side at most, by preset."""
    largest_batch: ClassVar[Mapping[str, int]] = {"tiny": 128, "small": 256, "base": 512}
    """Images of a batch at most, by preset."""

    def pixels(self, seen: SeenData, preset: str) -> Pixels:
        """Return sides of images and patches that fit half of the images or more."""
        largest = self.largest_image[preset]
        if seen.short_side is None:
            size, why = 32, "they are drawn at any size; 32 trains in minutes"
        else:
            fitting = [side for side in SIDES if side <= min(seen.short_side, largest)]
            size = fitting[-1] if fitting else SIDES[0]
            why = f"the shorter side of half of your images has {seen.short_side} pixels or more"
            if size == largest < seen.short_side:
                why += f"; {largest} keeps members of this size fast"
        patch = 16 if size > 128 else size // 8
        return Pixels(size, why, patch, f"{(size // patch) ** 2} patches an image")

    def fitted(self, seen: SeenData, preset: str, **code: Any) -> ConfigDraft:
        """Return a draft whose batches fit the images.

        Args:
            seen: of the training data.
            preset: a key of ``largest_batch``.
            code: what a draft says of the models.
        """
        return ConfigDraft(
            num_samples=seen.num_samples,
            sample_noun="images",
            largest_batch=self.largest_batch[preset],
            **code,
        )
