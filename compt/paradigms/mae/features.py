"""Read tokens, their mean, labels and losses from models and batches of mmpretrain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.errors import DataError
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
    """Return ``tokens`` [B, N, D] and ``pooled`` [B, D] from all that a backbone returned.

    Where it ran on several views, they follow each other along B.
    """
    all_tokens = torch.cat([tokens(output) for output in seen])
    is_map = detailed(seen[0]).ndim == 4
    num_extra = 0 if is_map else getattr(model.backbone, "num_extra_tokens", 0)
    has_patches = all_tokens.shape[1] > num_extra
    patches = all_tokens[:, num_extra:] if has_patches else all_tokens
    return {"tokens": all_tokens, "pooled": patches.mean(1)}


def tokens(output: Any) -> Tensor:
    """Return a backbone's output as tokens [B, N, D]."""
    values = detailed(output)
    if values.ndim == 4:
        return values.flatten(2).mT
    return values if values.ndim == 3 else values[:, None]


def detailed(output: Any) -> Tensor:
    """Return the last, most detailed tensor of a backbone's output.

    That is a map [B, D, H, W] of patches, else tokens [B, N, D], else a vector [B, D].
    """
    if isinstance(output, Tensor):
        return output
    candidates: list[Tensor] = [value for value in output if torch.is_floating_point(value)]
    most = max(value.ndim for value in candidates)
    return [value for value in candidates if value.ndim == most][-1]


def whole(model: nn.Module, batch: Batch) -> Tensor:
    """Return pooled features [B, D] of complete images, of which nothing is masked."""
    output = model.extract_feat(first_view(batch))  # type: ignore[operator]
    return features(model, [output])["pooled"].float()


def described(model: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return pooled features [N, D] and classes [N] of all samples of the batches."""
    pooled, classes = [], []
    for batch in batches:
        pooled.append(whole(model, batch))
        classes.append(labels(batch))
    return torch.cat(pooled), torch.cat(classes)


def first_view(batch: Batch) -> Tensor:
    """Return the images [B, 3, H, W] of a batch, the first view where there are several."""
    inputs = batch["inputs"]
    return inputs if isinstance(inputs, Tensor) else inputs[0]


def labels(batch: Batch) -> Tensor:
    """Return the classes [B] of a batch, -1 for none."""
    classes = [label_of(sample) for sample in batch["data_samples"]]
    return torch.tensor(classes, device=first_view(batch).device)


def only_labelled(batch: Batch) -> Batch:
    """Return the samples of a batch that have a class."""
    indices = (labels(batch) >= 0).nonzero()[:, 0].tolist()
    return {
        **batch,
        "inputs": batch["inputs"][indices],
        "data_samples": [batch["data_samples"][index] for index in indices],
    }


def label_of(data_sample: Any) -> int:
    """Return the class of mmpretrain's DataSample, -1 for none."""
    label = getattr(data_sample, "gt_label", None)
    return -1 if label is None else int(label.flatten()[0])


def check_labelled(batch: Batch) -> None:
    """Raise DataError where a classifier would learn from an image without a label."""
    samples = batch["data_samples"]
    # As in mmpretrain's heads: scores, of Mixup or of soft labels, come before labels.
    if "gt_score" in samples[0]:
        return
    present = [sample.gt_label.flatten() for sample in samples if "gt_label" in sample]
    # A plan runs on the meta device, whose tensors have no values.
    if any(label.is_meta for label in present):
        return
    if present and (torch.cat(present) < 0).any():
        raise DataError(
            "A classifier learns from labels, and a training image has none.",
            where="paradigm.data",
            do="Leave such images out of the training data.",
        )


def loss_terms(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of an algorithm's outputs that are terms of its loss.

    They are the ones with 'loss' in their name. This is mmengine's contract with its models:
    ``BaseModel.parse_losses`` sums these and logs all others, such as an accuracy. It is not called
    here because it returns the sum and the logs, not the terms.
    """
    return {name: value for name, value in values.items() if "loss" in name}


def scalar(value: Tensor | Sequence[Tensor]) -> Tensor:
    """Return a loss term of mmengine as a scalar, the mean of a tensor or the sum over a list."""
    if isinstance(value, Tensor):
        return value.mean()
    return torch.stack([term.mean() for term in value]).sum()


def resized(inputs: Any, size: tuple[int, int]) -> Any:
    """Return images [B, 3, H, W], or each view of several, in another height and width."""
    if isinstance(inputs, (list, tuple)):
        return [resized(view, size) for view in inputs]
    if tuple(inputs.shape[-2:]) == size:
        return inputs
    return F.interpolate(inputs, size, mode="bicubic", antialias=True)


def moved(value: Any, like: Tensor) -> Any:
    """Return a value of a batch on the device of a tensor, floats also in its number format."""
    if isinstance(value, (list, tuple)):
        return [moved(item, like) for item in value]
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(like if is_float else like.device)


def repeated(value: Any, times: int) -> Any:
    """Return a value of a batch of one sample as that of a batch of this sample ``times`` over."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(times, dim=0)
    if all(isinstance(item, Tensor) for item in value):
        return [repeated(view, times) for view in value]
    return list(value) * times
