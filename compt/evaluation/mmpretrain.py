"""Read exports of mmpretrain whose encoder timm does not have, such as a Swin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compt.evaluation.options import require

FILES = ("model.py", "model.pth")
"""An export's config and its weights."""


def is_mmpretrain(export: Path) -> bool:
    """Tell whether an export is a folder of mmpretrain."""
    return all((export / name).is_file() for name in FILES)


class Encoder(nn.Module):
    """A model of mmpretrain as far as its backbone, from images to the mean of their patches.

    Args:
        model: of mmpretrain.
        size: height and width of its images.
        is_rgb: whether its pixels are RGB, as those of the images; BGR otherwise.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], *, is_rgb: bool) -> None:
        super().__init__()
        self.model, self.size, self.is_rgb = model, size, is_rgb

    @property
    @torch.no_grad()
    def width(self) -> int:
        """The number of features of an image."""
        weight = next(self.parameters())
        features: Tensor = self(weight.new_zeros(1, 3, *self.size))
        return features.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, D] of prepared images [B, 3, H, W]."""
        from compt.paradigms.mae.features import whole

        return whole(self.model, {"inputs": images if self.is_rgb else images.flip(1)})


def open_mmpretrain(export: Path) -> tuple[Encoder, Callable[..., Callable[[Any], Tensor]]]:
    """Return a model's encoder, and what makes timm's transforms for its images.

    ``transform(**options)`` passes its options on to timm, after what the export says of pixels.

    Raises:
        ConfigError: the export is damaged.
        PluginError: mmpretrain or timm is missing.
    """
    require(["mmpretrain", "timm"], "compt[mae]")
    from compt.paradigms.mae import Mae, followed
    from compt.paradigms.mae.mmpretrain import image_size

    model: Any = Mae().load(export)
    pixels = model.mmpretrain_config["data_preprocessor"]
    is_rgb = bool(pixels.get("to_rgb"))
    source = followed.read(export)
    assert source is not None
    options = {**asdict(source.resize), **_normalisation(pixels, is_rgb=is_rgb)}
    size = image_size(model)

    def transform(**others: Any) -> Callable[[Any], Tensor]:
        import timm

        data: Any = timm.data
        made: Callable[[Any], Tensor] = data.create_transform((3, *size), **{**options, **others})
        return made

    return Encoder(model, size, is_rgb=is_rgb), transform


def _normalisation(pixels: Mapping[str, Any], *, is_rgb: bool) -> dict[str, tuple[float, ...]]:
    """Return mean and deviation of RGB in [0, 1], from those that mmpretrain has in [0, 255]."""
    values = {"mean": pixels.get("mean") or [0] * 3, "std": pixels.get("std") or [1] * 3}
    order = 1 if is_rgb else -1
    return {key: tuple(v / 255 for v in list(three)[::order]) for key, three in values.items()}
