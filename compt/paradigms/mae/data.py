"""Read images through mmpretrain's transforms, packed with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image
from torch.utils.data import Dataset

from compt.data import renumber
from compt.errors import ConfigError
from compt.paradigms.mae.mmpretrain import scope


def default_pipeline(size: tuple[int, int], *, train: bool) -> list[dict[str, Any]]:
    """Return MAE's own transforms for training, and a resized centre crop otherwise."""
    bicubic = {"backend": "pillow", "interpolation": "bicubic"}
    steps: list[dict[str, Any]]
    if train:
        steps = [
            {
                "type": "RandomResizedCrop",
                "scale": size[::-1],
                "crop_ratio_range": (0.2, 1.0),
                **bicubic,
            },
            {"type": "RandomFlip", "prob": 0.5},
        ]
    else:
        steps = [
            {"type": "ResizeEdge", "scale": min(size), "edge": "short", **bicubic},
            {"type": "CenterCrop", "crop_size": size[::-1]},
        ]
    return [*steps, {"type": "PackInputs"}]


class ImageDataset(Dataset[Any]):
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
        self.source = source
        own: tuple[str, ...] = getattr(source, "classes", ())
        self.classes = own if classes is None else classes
        self._numbers = None if classes is None else renumber([*range(len(own)), -1], own, classes)
        try:
            with scope():
                self.pipeline = Compose([dict(step) for step in pipeline])
        except Exception as error:  # mmengine wraps whatever a constructor raises
            raise ConfigError(
                f"The pipeline cannot be built: {type(error).__name__}: {error}",
                where="paradigm.pipeline",
            ) from error

    @property
    def broken_count(self) -> int:
        """Return how many samples of the source could not be read so far."""
        return getattr(self.source, "broken_count", 0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        """Return one image and its label, -1 where it has none."""
        sample = self.source[index]
        label = int(sample["label"])
        image = np.ascontiguousarray(np.asarray(sample["image"])[:, :, ::-1])
        shape = image.shape[:2]
        return self.pipeline(
            {
                "img": image,
                "img_shape": shape,
                "ori_shape": shape,
                "gt_label": label if self._numbers is None else int(self._numbers[label]),
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
