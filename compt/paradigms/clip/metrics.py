"""Measure zero-shot classification, retrieval, loss and wrong captions, with what guessing gets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from compt.interfaces import Metric

PAIRS = 100
"""Pairs of a batch of the held-out loss, whatever the batches of training are."""


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


def contrastive(image_NE: Tensor, text_NE: Tensor, scale: Tensor) -> dict[str, Metric]:
    """Return CLIP's loss over batches of ``PAIRS`` pairs, in both directions and on average.

    A split is dealt out to its batches like cards, so that those of a sorted one are no harder.
    What fills no batch is left out; fewer pairs than one batch takes are one. Another pair with
    the same text counts as wrong, as in training. Chance is the loss of equal similarities.
    """
    pairs = min(PAIRS, len(image_NE))
    count = len(image_NE) // pairs
    image, text = (
        features[: count * pairs].reshape(pairs, count, -1).transpose(0, 1)
        for features in (image_NE, text_NE)
    )
    logits = scale * image @ text.transpose(1, 2)
    right = torch.arange(pairs, device=logits.device).expand(count, pairs)
    # cross_entropy has the candidates in dimension 1: texts for each image, then images.
    loss = cross_entropy(logits.transpose(1, 2), right) + cross_entropy(logits, right)
    return {"contrastive_loss": Metric(loss.item() / 2, math.log(pairs), False, "nats")}


def negatives(
    image_NE: Tensor, text_NE: Tensor, wrong_NE: Tensor, is_wrong_N: Tensor
) -> dict[str, Metric]:
    """Return how often an image is nearer to its caption than to a wrong one, ties by half.

    Args:
        image_NE: features of the images.
        text_NE: those of their captions.
        wrong_NE: those of the wrong captions.
        is_wrong_N: which samples have one that is read as another text; the others do not count.
            Empty where there is none.
    """
    if not is_wrong_N.any():
        return {}
    lead = (image_NE * (text_NE - wrong_NE)).sum(1)[is_wrong_N]
    value = (lead.sign() + 1).mean().item() / 2
    return {"negative_accuracy": Metric(value, chance=0.5, unit="share")}


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
