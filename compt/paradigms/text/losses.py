"""Compare a model's predictions of tokens with the tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from compt.interfaces import Metric

IGNORED = -100
"""Label of a token that is not to be predicted, as torch and transformers have it."""


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross entropy of logits [B, L, V] and labels [B, L], in at least float32.

    Args:
        logits: of every token of the vocabulary.
        labels: ids, or :data:`IGNORED`.
        reduction: 'mean' in nats a label, NaN where all are ignored, 'sum', or 'none' for those of
            every label [B * L].
    """
    # bfloat16 has two to three digits: losses would be rounded more coarsely than members of a
    # chain differ.
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide).flatten(0, -2), labels.flatten(), reduction=reduction)


def cross_entropy_of(
    hidden: Tensor, head: Callable[[Tensor], Tensor], labels: Tensor, chunk: int
) -> Tensor:
    """Return the cross entropy of every label [B, L], with the logits of some tokens at a time.

    Those are computed once more in the backward pass.

    Args:
        hidden: hidden states [B, L, D].
        head: returns the logits [N, V] of hidden states [N, D].
        labels: ids [B, L], or :data:`IGNORED`, whose loss is 0.
        chunk: tokens at a time.
    """

    def losses(states: Tensor, ids: Tensor) -> Tensor:
        return cross_entropy(head(states), ids, reduction="none")

    chunks = zip(hidden.flatten(0, -2).split(chunk), labels.flatten().split(chunk), strict=True)
    parts = [checkpoint(losses, *rows, use_reentrant=False) for rows in chunks]
    return torch.cat(parts).view_as(labels)


def token_metrics(predictions: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Metric]:
    """Return the loss in nats a label, and the share of labels whose logit is the largest.

    Chance is an even guess over the vocabulary, and the share of the most frequent label.

    Args:
        predictions: logits [B, L, V] and labels [B, L] of each batch; :data:`IGNORED` is left out.
    """
    total, right, size = 0.0, 0, 1
    known = []
    for logits, labels in predictions:
        total += cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(-1) == labels).sum())
        known.append(labels[labels != IGNORED].cpu())
        size = logits.shape[-1]
    all_labels = torch.cat(known) if known else torch.empty(0, dtype=torch.long)
    count = max(len(all_labels), 1)
    frequent = all_labels.bincount().max().item() / count if len(all_labels) else 0.0
    return {
        "loss": Metric(total / count, math.log(size), higher_is_better=False, unit="nats"),
        "accuracy": Metric(right / count, frequent, unit="share"),
    }
