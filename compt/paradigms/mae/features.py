"""What a backbone of mmpretrain makes of a batch: tokens, their mean, and the labels beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compt.interfaces import Batch


@contextmanager
def watching(model: nn.Module, batch: Batch) -> Iterator[list[Any]]:
    """Give the backbone its masks, and collect what it returns."""
    seen: list[Any] = []
    backbone: Any = model.backbone
    backbone.noise = batch.get("noise")
    handle = backbone.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()
        backbone.noise = None


def features(model: nn.Module, seen: Sequence[Any]) -> dict[str, Tensor]:
    """Tokens and their mean from all that a backbone returned, views after each other."""
    found = torch.cat([tokens(output) for output in seen])
    extra = 0 if detailed(seen[0]).ndim == 4 else getattr(model.backbone, "num_extra_tokens", 0)
    patches = found[:, extra:] if found.shape[1] > extra else found
    return {"tokens": found, "pooled": patches.mean(1)}


def tokens(output: Any) -> Tensor:
    """A backbone's output as tokens [B, N, D]."""
    found = detailed(output)
    if found.ndim == 4:
        return found.flatten(2).mT
    return found if found.ndim == 3 else found[:, None]


def detailed(output: Any) -> Tensor:
    """The last, most detailed tensor of a backbone's output: a vector, tokens, or a map [B, D, H,
    W] of patches.
    """
    found = (
        [output]
        if isinstance(output, Tensor)
        else [one for one in output if torch.is_floating_point(one)]
    )
    return [one for one in found if one.ndim == max(f.ndim for f in found)][-1]


def whole(model: nn.Module, batch: Batch) -> Tensor:
    """Pooled features [B, D] of whole images, nothing masked."""
    inputs = batch["inputs"] if isinstance(batch["inputs"], Tensor) else batch["inputs"][0]
    return features(model, [model.extract_feat(inputs)])["pooled"].float()  # type: ignore[operator]


def labels(batch: Batch) -> Tensor:
    """The classes [B] of a batch, -1 for none."""
    device = (batch["inputs"] if isinstance(batch["inputs"], Tensor) else batch["inputs"][0]).device
    return torch.tensor([label_of(sample) for sample in batch["data_samples"]], device=device)


def only_labelled(batch: Batch) -> Batch:
    """The samples of a batch that have a class."""
    kept = (labels(batch) >= 0).nonzero()[:, 0].tolist()
    return {
        **batch,
        "inputs": batch["inputs"][kept],
        "data_samples": [batch["data_samples"][i] for i in kept],
    }


def label_of(data_sample: Any) -> int:
    """The class of mmpretrain's DataSample, -1 for none."""
    label = getattr(data_sample, "gt_label", None)
    return -1 if label is None else int(label.flatten()[0])


def scalar(value: Tensor | Sequence[Tensor]) -> Tensor:
    """A loss of mmengine: a tensor's mean, or the sum of means over a list."""
    return (
        value.mean()
        if isinstance(value, Tensor)
        else torch.stack([one.mean() for one in value]).sum()
    )


def moved(value: Any, like: Tensor) -> Any:
    """A part of a batch on the device, and floats in the number format, of another tensor."""
    if isinstance(value, (list, tuple)):
        return [moved(one, like) for one in value]
    return value.to(
        like if isinstance(value, Tensor) and value.is_floating_point() else like.device
    )
