"""Small models of every kind, their batches, and the loss written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compt import PARADIGMS, Member


def config(width: int, layers: int, **options: Any) -> dict[str, Any]:
    """A member's model on images of 16 x 16 pixels, without scale and bias."""
    return dict(
        embed_dim=16,
        vision_cfg=dict(image_size=16, patch_size=8, width=width, layers=layers, head_width=16),
        text_cfg=dict(context_length=8, width=width, layers=layers, heads=width // 16),
        **options,
    )


MODEL, LARGER = config(32, 1), config(64, 2)
CUSTOM, CUSTOM_LARGER = config(32, 1, custom_text=True), config(64, 2, custom_text=True)
PUBLISHED = dict(
    embed_dim=64,
    init_logit_bias=-10,
    custom_text=True,
    vision_cfg=dict(timm_model_name="test_vit", image_size=160, timm_pool="map", timm_proj="none"),
    text_cfg=dict(
        context_length=8,
        width=32,
        heads=2,
        layers=1,
        no_causal_mask=True,
        proj_bias=True,
        pool_type="last",
    ),
)
"""As the SigLIP models in open_clip are built: attention pooling, a text tower that looks both
ways.
"""


def build(
    model: Any = MODEL, *, kind: str = "siglip", seed: int = 0, **options: Any
) -> tuple[Any, nn.Module]:
    """A paradigm and a model of it, in eval mode, whose parameters all have noise on them."""
    paradigm = PARADIGMS.build(dict(type=kind, **options))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = paradigm.build_model(Member("a", model)).eval()
        with torch.no_grad():
            for param in net.parameters():
                param.add_(0.02 * torch.randn_like(param))
    return paradigm, net


def batch_of(paradigm: Any, split: str = "val", count: int = 8) -> Mapping[str, Any]:
    """A prepared batch of the first samples."""
    dataset = paradigm.build_dataset(split)
    raw = paradigm.collate([dataset[i] for i in range(count)])
    return paradigm.prepare(raw, generator=torch.Generator().manual_seed(0))


def outputs_of(
    count: int = 6, *, scale: float = 12.0, bias: float = -8.0, seed: int = 0
) -> dict[str, Tensor]:
    """Random outputs of a model in float64, as leaves."""
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        nn.functional.normalize(
            torch.randn(count, 5, generator=generator, dtype=torch.float64), dim=1
        )
        for _ in "ab"
    )
    values = dict(image_features=image, text_features=text)
    values |= dict(logit_scale=torch.tensor(scale).double(), logit_bias=torch.tensor(bias).double())
    return {name: value.requires_grad_() for name, value in values.items()}


def written_out(outputs: Mapping[str, Tensor]) -> float:
    """Compute the loss of the paper, pair by pair.

    It is -1/B sum_ij log 1 / (1 + exp(-z_ij (t x_i y_j + b))).
    """
    images, texts = outputs["image_features"].tolist(), outputs["text_features"].tolist()
    scale, bias = outputs["logit_scale"].item(), outputs["logit_bias"].item()
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            logit = scale * sum(x * y for x, y in zip(image, text, strict=True)) + bias
            total += math.log(1 / (1 + math.exp(-(1 if i == j else -1) * logit)))
    return -total / len(images)
