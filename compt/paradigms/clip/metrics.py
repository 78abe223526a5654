"""Measure zero-shot classification and retrieval, with what guessing would reach."""

from __future__ import annotations

import torch
from torch import Tensor

from compt.interfaces import Metric


def zero_shot(image_NE: Tensor, classifier_EC: Tensor, label_N: Tensor) -> dict[str, Metric]:
    """Return top-1 and top-5 accuracy over the samples that have a class.

    A class is a label >= 0. Chance is k of C classes. Empty where no sample has a class.
    """
    labelled = label_N >= 0
    classes = classifier_EC.shape[1]
    if not labelled.any():
        return {}
    ranked = (image_NE[labelled] @ classifier_EC).topk(min(5, classes), dim=1).indices
    hit = ranked == label_N[labelled, None].to(ranked.device)
    return {
        f"zeroshot_top{k}": Metric(
            hit[:, :k].any(1).float().mean().item(), chance=min(1.0, k / classes), unit="share"
        )
        for k in (1, 5)
    }


def retrieval(
    image_NE: Tensor, text_NE: Tensor, token_NL: Tensor, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, Metric]:
    """Return recall at k from images to texts and from texts to images.

    It is the share of queries with a right answer among the k nearest. Samples whose texts are
    equal to the token are right answers for each other; chance is the expectation for a random
    order.
    """
    _, text_id = torch.unique(token_NL, dim=0, return_inverse=True)
    right = torch.bincount(text_id)[text_id]
    metrics: dict[str, Metric] = {}
    for way, query, answer in (
        ("image_to_text", image_NE, text_NE),
        ("text_to_image", text_NE, image_NE),
    ):
        chunks = zip(query.split(1024), text_id.split(1024), strict=True)
        hits = torch.cat([_hits(q, answer, ids, text_id, max(ks)) for q, ids in chunks])
        for k in ks:
            metrics[f"{way}_R@{k}"] = Metric(
                hits[:, :k].any(1).float().mean().item(),
                chance=_chance(right, len(right), k),
                unit="share",
            )
    return metrics


def _hits(query: Tensor, answer: Tensor, query_id: Tensor, answer_id: Tensor, k: int) -> Tensor:
    nearest = (query @ answer.T).topk(min(k, len(answer)), dim=1).indices
    return answer_id[nearest] == query_id[:, None]


def _chance(right_N: Tensor, total: int, k: int) -> float:
    """Return the expected recall at k of a random order.

    That is 1 - P(no right answer among k drawn without replacement), averaged over the queries.
    """
    miss = torch.ones(len(right_N), dtype=torch.float64)
    for i in range(min(k, total)):
        miss *= ((total - right_N.cpu().double() - i) / (total - i)).clamp_min(0)
    return float((1 - miss).mean())
