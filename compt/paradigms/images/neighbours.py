"""Measure frozen features of images by the labels of their nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.interfaces import Batch, Metric


def labelled_features(
    features: Callable[[Tensor], Tensor], batches: Iterable[Batch]
) -> tuple[Tensor, Tensor]:
    """Return unit-length features [N, D] and labels [N] of the images that have a label.

    Args:
        features: returns those of images [B, 3, H, W], as [B, D].
        batches: with ``image`` and ``label``, -1 for none, as of :class:`WholeImages`.
    """
    vectors, labels = [], []
    for batch in batches:
        known = batch["label"] >= 0
        if known.any():
            vectors.append(F.normalize(features(batch["image"][known]).float(), dim=-1))
            labels.append(batch["label"][known])
    if not vectors:
        return torch.empty(0, 1), torch.empty(0, dtype=torch.long)
    return torch.cat(vectors), torch.cat(labels)


def neighbours(
    bank: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    *,
    count: int = 20,
    temperature: float = 0.07,
) -> dict[str, Metric]:
    """Return ``knn``, how often the nearest images of a bank vote for the class of a query.

    They vote with exp(cosine / temperature), as Wu et al. 2018 (arXiv 1805.01978) and DINO do.
    Chance is the share of the most frequent class. Empty where bank or queries are.

    Args:
        bank: unit-length features [N, D] and labels [N], as of :func:`labelled_features`.
        queries: the same of the images to tell apart.
        count: of the neighbours that vote.
        temperature: the lower, the more the nearest decide.
    """
    (known, names), (asked, truth) = bank, queries
    if not len(known) or not len(asked):
        return {}
    near = (asked @ known.T).topk(min(count, len(known)))
    votes = torch.zeros(len(asked), int(names.max()) + 1, device=known.device)
    votes.scatter_add_(1, names[near.indices], (near.values / temperature).exp())
    right = (votes.argmax(1) == truth).float().mean().item()
    chance = truth.bincount().max().item() / len(truth)
    return {"knn": Metric(right, chance, unit="share")}
