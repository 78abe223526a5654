"""Read images through mmpretrain's transforms, packed with their labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image

from compt.errors import ConfigError
from compt.paradigms.images.relabelled import Relabelled
from compt.paradigms.mae.mmpretrain import scope

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "lanczos", "hamming")
"""What mmcv and timm have in common."""


@dataclass(frozen=True)
class Resize:
    """How timm resizes an image and cuts out what is evaluated."""

    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def pipeline(self, size: tuple[int, int], *, train: bool) -> list[dict[str, Any]]:
        """Return it as transforms of mmpretrain, for training with MAE's random crops.

        Raises:
            ConfigError: mmpretrain's transforms cannot do it.
        """
        self._check()
        how = {"backend": "pillow", "interpolation": self.interpolation}
        steps: list[dict[str, Any]]
        if train:
            ratio = (0.2, 1.0)
            crop = {"type": "RandomResizedCrop", "scale": size[::-1], "crop_ratio_range": ratio}
            steps = [{**crop, **how}, {"type": "RandomFlip", "prob": 0.5}]
        else:
            scale = tuple(math.floor(side / self.crop_pct) for side in size[::-1])
            resize = {"type": "ResizeEdge", "scale": min(scale), "edge": "short", **how}
            if self.crop_mode == "squash":
                resize = {"type": "Resize", "scale": scale, **how}
            steps = [resize, {"type": "CenterCrop", "crop_size": size[::-1]}]
        return [*steps, {"type": "PackInputs"}]

    def _check(self) -> None:
        for key, known in (
            ("interpolation", INTERPOLATIONS),
            ("crop_mode", ("center", "squash")),
        ):
            if getattr(self, key) not in known:
                raise ConfigError(
                    f"The checkpoint's {key} '{getattr(self, key)}' cannot be followed.",
                    where="paradigm.pipeline, paradigm.test_pipeline",
                    do=f"Name both pipelines; followed are {', '.join(known)}.",
                )


def default_pipeline(
    size: tuple[int, int], *, train: bool, resize: Resize | None = None
) -> list[dict[str, Any]]:
    """Return MAE's own transforms for training, and a resized centre crop otherwise."""
    return (resize or Resize()).pipeline(size, train=train)


def fitting(
    steps: Sequence[Mapping[str, Any]], size: tuple[int, int], path: Path
) -> Sequence[Mapping[str, Any]]:
    """Return the pipeline of a checkpoint for images that are read already.

    Raises:
        ConfigError: mmpretrain has no such transform, or they make images of another size.
    """
    inputs = black_sample(size, steps)["inputs"]
    made = tuple(getattr(inputs, "shape", ())[-2:])
    if made != size:
        raise ConfigError(
            f"The test pipeline of '{path}' makes images of {made}, the members take {size}.",
            where="paradigm.test_pipeline",
            do="Name one: test_pipeline=[...], without a transform that loads images.",
        )
    return steps


class ImageDataset(Relabelled):
    """A source of images behind a pipeline of mmpretrain transforms.

    Items are as in mmpretrain's data sets, ``inputs`` uint8 [3, H, W] in BGR, or a list of views,
    and ``data_samples``.

    Args:
        source: items ``dict(image=PIL RGB, label=int)``.
        pipeline: transform configs, without one that loads images; the last packs the inputs.
        classes: names of the classes by which labels are numbered, -1 for any other; the source's
            own by default.

    Raises:
        ConfigError: mmpretrain has no such transform, or not with these arguments.
    """

    def __init__(
        self,
        source: Any,
        pipeline: Sequence[Mapping[str, Any]],
        classes: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(source, classes)
        try:
            with scope():
                self.pipeline = Compose([dict(step) for step in pipeline])
        except Exception as error:  # mmengine wraps whatever a constructor raises
            raise ConfigError(
                f"The pipeline cannot be built: {type(error).__name__}: {error}",
                where="paradigm.pipeline",
            ) from error

    def __getitem__(self, index: int) -> Any:
        """Return one image and its label, -1 where it has none."""
        sample = self.source[index]
        image = np.ascontiguousarray(np.asarray(sample["image"])[:, :, ::-1])
        shape = image.shape[:2]
        return self.pipeline(
            {
                "img": image,
                "img_shape": shape,
                "ori_shape": shape,
                "gt_label": self.label_of(sample),
                "sample_idx": index,
            }
        )


def black_sample(size: tuple[int, int], pipeline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a pipeline makes of a black image of ``size`` (height, width) with the label 0.

    Raises:
        ConfigError: the pipeline does not pack its results as mmpretrain's algorithms take them.
    """
    sample: dict[str, Any] = ImageDataset(
        [{"image": Image.new("RGB", size[::-1]), "label": 0}], pipeline
    )[0]
    if not {"inputs", "data_samples"} <= sample.keys():
        raise ConfigError(
            f"The pipeline ends with {sorted(sample)}, not with inputs and data_samples.",
            where="paradigm.pipeline",
            do="End it with dict(type='PackInputs').",
        )
    return sample
