"""Read image-text samples as pixels of the model's size, token ids and class label."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, Normalize, ToTensor

from compt.data import BrokenSample
from compt.data.source_dataset import SourceDataset
from compt.interfaces import LeftOut
from compt.interfaces.fingerprint import probed

LOOKED_AT = 500
"""Captions that are tokenised before training, to say how many are cut."""
FITS, CUT = 1, 2
"""What is known of a sample's caption, 0 before it was read."""


class PairDataset(SourceDataset):
    """Resize, crop and tokenise what a source of image-text pairs yields.

    Args:
        source: items ``dict(image=PIL RGB, captions=(str, ...), label=int)``, with at least one
            caption, and ``negative`` where it has wrong ones.
        size: height and width of the images.
        tokenize: texts -> [N, context].
        augment: smallest area of a random crop, as open_clip crops in training; None resizes the
            shorter side and crops the centre, as open_clip evaluates.
        draws_caption: whether a sample draws one of its captions, as in training; else it takes
            the first.
        has_negatives: whether samples come with a wrong caption. One that has none gets its own
            caption in its place.
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
        draws_caption: bool = False,
        has_negatives: bool = False,
        resize: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(source)
        self.size, self.augment = size, augment
        self.draws_caption, self.has_negatives = draws_caption, has_negatives
        self.transform = _to_image(size, augment, resize or {})
        self._tokenize = tokenize
        # Captions repeat at every epoch, and over the images of a class that are captioned by its
        # name: tokenised again each time, they would keep the workers from reading images.
        self._tokens = lru_cache(maxsize=100_000)(self._encode)
        # Which captions were read, and which cut, in memory that worker processes share.
        self.known = torch.zeros(len(source), dtype=torch.uint8).share_memory_()
        self._look_at_captions()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache behind when a worker process takes a copy."""
        return {k: v for k, v in self.__dict__.items() if k != "_tokens"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tokens = lru_cache(maxsize=100_000)(self._encode)

    @property
    def left_out(self) -> LeftOut:
        """What of the source is left out, and how many samples' captions were cut so far."""
        result = super().left_out
        num_read, num_cut = int(self.known.count_nonzero()), int((self.known == CUT).sum())
        if num_cut:
            context = len(self._tokens("")[0])
            result.part(f"samples whose caption is cut to {context} tokens", num_cut)
            result.num_read = None if num_read == len(self) else max(num_read, result.num_read or 0)
        return result

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``image`` uint8 [3, H, W], ``text`` int64 [context] and ``label``.

        With negatives also ``negative``, int64 [context].
        """
        sample = self.source[index]
        captions = sample["captions"]
        caption = random.choice(captions) if self.draws_caption else captions[0]
        item = {
            "image": self._pixels(sample["image"]),
            "text": self._text(index, caption),
            "label": int(sample["label"]),
        }
        if self.has_negatives:
            item["negative"], _ = self._tokens(sample.get("negative") or caption)
        return item

    def _pixels(self, image: Image.Image) -> Tensor:
        if self.augment is not None or image.size[::-1] != self.size:
            image = self.transform(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def _look_at_captions(self) -> None:
        """Tokenise some captions, where the source gives them without their images."""
        captions_of = getattr(self.source, "captions", None)
        if captions_of is None:
            return
        chosen = probed(len(self), LOOKED_AT)
        self.fetch_ahead(chosen, images=False)
        for index in chosen:
            with contextlib.suppress(BrokenSample):
                for caption in captions_of(index):
                    self._text(index, caption)

    def _text(self, index: int, caption: str) -> Tensor:
        """Return the tokens of a sample's caption, and remember whether it was cut."""
        ids, is_cut = self._tokens(caption)
        if is_cut or not self.known[index]:
            self.known[index] = CUT if is_cut else FITS
        return ids

    def _encode(self, caption: str) -> tuple[Tensor, bool]:
        ids = self._tokenize([caption])[0]
        return ids, _is_cut(self._tokenize, caption, ids)


def _is_cut(tokenize: Callable[..., Tensor], caption: str, ids: Tensor) -> bool:
    """Whether a tokenizer has cut a caption, as one more token of room shows."""
    if not int(ids[-1]):  # open_clip's own tokenizer pads with 0: there was room
        return False
    try:
        longer = tokenize([caption], context_length=len(ids) + 1)[0]
    except TypeError:  # a tokenizer of another kind does not say
        return False
    inner = getattr(tokenize, "tokenizer", None)
    padding = getattr(inner, "pad_token_id", None) or 0
    return not torch.equal(longer[:-1], ids) or int(longer[-1]) != padding


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
