"""Compare a model's predictions of tokens with the tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.interfaces import Metric

IGNORED = -100
"""Label of a token that is not to be predicted, as torch and transformers have it."""


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross entropy of logits [B, L, V] and labels [B, L], in at least float32.

    Args:
        logits: of every token of the vocabulary.
        labels: ids, or :data:`IGNORED`.
        reduction: 'mean' in nats a label, NaN where all are ignored, or 'sum'.
    """
    # bfloat16 has two to three digits: losses would be rounded more coarsely than members of a
    # chain differ.
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide).flatten(0, -2), labels.flatten(), reduction=reduction)


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
