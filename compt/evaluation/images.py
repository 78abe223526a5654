"""Read image models from exports, and features of images in folders.

A folder of images is as ImageNet's: ``DATA/SPLIT/CLASS/image``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from compt.errors import DataError
from compt.evaluation.mmpretrain import is_mmpretrain, open_mmpretrain
from compt.evaluation.options import folder as existing_folder
from compt.files import WEIGHT_SUFFIXES
from compt.interfaces.foreign import read_json
from compt.weights import read_checkpoint

OPEN_CLIP = "open_clip_config.json"
TIMM = "config.json"


@dataclass(frozen=True)
class ImageModel:
    """The part of a model that reads images, frozen."""

    module: nn.Module
    transform: Callable[[Any], Tensor]
    """PIL image -> [3, H, W]."""
    features: Callable[[Tensor], Tensor]
    """Images [B, 3, H, W] -> [B, D]."""


def device() -> torch.device:
    """Return the GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_open_clip(export: Path) -> bool:
    """Tell whether an export is a folder of open_clip."""
    return (export / OPEN_CLIP).is_file()


def timm_folder(export: Path) -> Path | None:
    """Return timm's folder, which an export is or holds, None where there is none."""
    for folder in (export, export / "timm"):
        try:
            content = read_json(folder / TIMM)
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and "architecture" in content:
            return folder
    return None


def is_image_model(export: Path) -> bool:
    """Tell whether an export is of open_clip or mmpretrain, or is or holds a folder of timm."""
    return is_open_clip(export) or timm_folder(export) is not None or is_mmpretrain(export)


def open_model(export: Path) -> ImageModel:
    """Read a frozen model on the GPU, or the CPU where there is none.

    Features of open_clip's models are the unit vectors that are compared with texts, those of
    timm's the mean of the patches' tokens, or what the model itself pools where it has no tokens,
    and those of mmpretrain's the mean of the patches. An export with an encoder for timm is read by
    timm.
    """
    if is_open_clip(export):
        import open_clip

        clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{export}")
        clip = clip.eval().to(device())
        return ImageModel(clip, transform, lambda x: clip.encode_image(x, normalize=True))
    if timm_folder(export) is None:
        encoder, transforms = open_mmpretrain(export)
        return ImageModel(encoder.eval().to(device()), transforms(), encoder)
    model, transform = open_timm(export)
    model = model.eval().to(device())
    return ImageModel(model, transform, lambda x: _pooled(model, x))


def open_timm(export: Path, **options: Any) -> tuple[Any, Callable[[Any], Tensor]]:
    """Return timm's model, and how it prepares images to be evaluated.

    Args:
        export: that :func:`timm_folder` accepts.
        options: of the model, beside those of the folder.

    Raises:
        ConfigError: its weights hold objects that are no tensors.
    """
    import timm

    folder = timm_folder(export)
    assert folder is not None
    for file in folder.iterdir():  # timm's older versions make what objects are in them
        if file.suffix in WEIGHT_SUFFIXES and file.suffix != ".safetensors":
            read_checkpoint(file)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **options)
    data: Any = timm.data
    return model, data.create_transform(**data.resolve_model_data_config(model))


def _pooled(model: Any, images: Tensor) -> Tensor:
    """Return the mean of the patches' tokens [B, D], or what a model without tokens pools."""
    tokens: Tensor = model.forward_features(images)
    if tokens.ndim != 3:
        pooled: Tensor = model.forward_head(tokens, pre_logits=True)
        return pooled
    return tokens[:, getattr(model, "num_prefix_tokens", 0) :].mean(1)


def open_images(folder: Path, transform: Callable[[Any], Any] | None = None) -> Any:
    """Open the images of a split as torchvision's ImageFolder.

    Raises:
        DataError: there is no such folder, or a class in it has no image.
    """
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(folder), transform, loader=_loaded)
    except (FileNotFoundError, NotADirectoryError) as error:
        why = error.strerror or str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"The images cannot be read: {why}.",
            where=str(folder),
            do="Images belong into a folder for each class: DATA/SPLIT/CLASS/image.",
        ) from error


def _loaded(path: str) -> Any:
    """Return an image as torchvision does, but for formats that another program would decode."""
    from compt.data.images.decode import open_image

    with open(path, "rb") as file:
        return open_image(file).convert("RGB")


def open_train_and_test(data: Path, train: str, test: str) -> tuple[Any, Any]:
    """Open two folders of images in a folder, of the same classes.

    Raises:
        ConfigError: there is no folder ``data``.
        DataError: a split is missing, or has classes that the training split lacks.
    """
    root = existing_folder(data, "data")
    train_images, test_images = (open_images(root / split) for split in (train, test))
    if missing := sorted(set(test_images.classes) - set(train_images.classes)):
        raise DataError(
            f"{len(missing)} classes have no training images, such as '{missing[0]}'.",
            where=str(test_images.root),
            do="Give both splits the same folders of classes.",
        )
    return train_images, test_images


def batches(
    images: Dataset[Any], batch_size: int, num_workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images [B, 3, H, W] and labels [B] in order, on the model's device."""
    for image, label in DataLoader(images, batch_size, num_workers=num_workers):
        yield image.to(device(), non_blocking=True), label


@torch.inference_mode()
def described(
    model: ImageModel, images: Dataset[Any], batch_size: int, num_workers: int
) -> tuple[Tensor, Tensor]:
    """Return the features [N, D] and labels [N] of images, on the CPU.

    Args:
        model: which also prepares the images.
        images: an ImageFolder, or a subset of one.
        batch_size: images that are read at once.
        num_workers: processes that prepare them.
    """
    folder: Any = images.dataset if isinstance(images, Subset) else images
    folder.transform = model.transform
    pairs = [
        (model.features(image).float().cpu(), label)
        for image, label in batches(images, batch_size, num_workers)
    ]
    features, labels = zip(*pairs, strict=True)
    return torch.cat(features), torch.cat(labels)
