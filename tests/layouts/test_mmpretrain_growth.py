"""Masked autoencoders of mmpretrain grown, encoder and decoder each by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.paradigms.mae_models import (
    PATCHES,
    SIMMIM_PIPELINE,
    built,
    classifier,
    doubled,
    mae,
    prepared,
    raw,
    simmim,
    vit,
)

# isort: split
from compt import describe, grow
from compt.interfaces import Member
from compt.paradigms.mae import Mae
from compt.testing.contracts import randomised

LAYER_SCALE = dict(layer_scale_init_value=0.1)


def encoded(module: nn.Module, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the reconstruction, and tokens of whole and of masked images."""
    images = torch.randn(
        2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    module.eval()
    with torch.no_grad():
        torch.manual_seed(seed)
        tokens, mask, order = module.backbone(images)
        return {
            "pixels": module.neck(tokens, order),
            "loss": module.head.loss(module.neck(tokens, order), images, mask),
            "tokens": tokens,
            "whole": module.extract_feat(images)[-1],
        }


SIZES = {
    "encoder alone, wider": ((32, 2, 32, 2), (80, 2, 32, 2)),
    "encoder alone, deeper": ((32, 1, 16, 1), (32, 4, 16, 1)),
    "decoder alone, wider": ((32, 2, 16, 1), (32, 2, 48, 1)),
    "decoder alone, deeper": ((32, 2, 16, 1), (32, 2, 16, 3)),
    "both, no multiples": ((48, 2, 32, 1), (112, 5, 80, 4)),
    "both, multiples": ((16, 1, 16, 1), (64, 3, 32, 2)),
}


@pytest.mark.parametrize("case", SIZES)
def test_lossless_is_exact_for_encoder_and_decoder_each_by_itself(case):
    source, target = (doubled(mae(*sizes)) for sizes in SIZES[case])
    randomised(source)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    source_outputs, target_outputs = encoded(source), encoded(target)
    assert all(
        torch.allclose(source_outputs[k], target_outputs[k], atol=1e-9) for k in ("pixels", "loss")
    )
    if source_outputs["tokens"].shape == target_outputs["tokens"].shape:
        assert all(
            torch.allclose(source_outputs[k], target_outputs[k], atol=1e-9)
            for k in ("tokens", "whole")
        )


def test_two_growths_in_a_row_are_exact():
    models = [doubled(mae(*sizes)) for sizes in ((32, 1, 16, 1), (48, 2, 32, 1), (112, 3, 48, 3))]
    randomised(models[0])
    for source, target in pairwise(models):
        assert grow(source, target).error < 1e-9
    assert torch.allclose(encoded(models[0])["pixels"], encoded(models[2])["pixels"], atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        LAYER_SCALE,
        dict(out_type="avg_featmap", final_norm=False),
        dict(out_type="avg_featmap", final_norm=False, with_cls_token=False, qkv_bias=False),
    ],
)
def test_lossless_keeps_the_scores_of_classifiers_at_any_width(options):
    source, target = doubled(classifier(48, 2, **options)), doubled(classifier(112, 5, **options))
    randomised(source)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    source.eval(), target.eval()
    with torch.no_grad():
        assert torch.allclose(source(images), target(images), atol=1e-9)


@pytest.mark.parametrize(("width", "exact"), [(64, True), (48, False)])
def test_a_norm_before_the_blocks_is_exact_at_multiples_and_says_so(width, exact):
    source, target = (doubled(vit(w, 2, pre_norm=True, out_type="raw")) for w in (32, width))
    randomised(source)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving is exact
    assert exact or "pre_norm" in growth.reason


@pytest.mark.parametrize(("width", "exact"), [(64, True), (48, False)])
def test_two_norms_in_a_row_are_exact_at_multiples_and_say_so(width, exact):
    """The mean of normed patches, normed again."""
    source, target = (doubled(classifier(w, 2, out_type="avg_featmap")) for w in (32, width))
    randomised(source)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving is exact
    assert exact or (growth.reason and growth.error > 1e-9)


def test_leading_block_puts_both_parts_into_the_corner():
    source, target = doubled(mae(32, 2, 16, 1)), doubled(mae(48, 3, 32, 2))
    randomised(source)
    growth = grow(source, target, "leading_block")
    assert not growth.dropped
    assert torch.equal(target.neck.decoder_embed.weight[:16, :32], source.neck.decoder_embed.weight)
    assert torch.equal(target.backbone.pos_embed[..., :32], source.backbone.pos_embed)
    qkv = target.backbone.layers[0].attn.qkv.weight.unflatten(0, (3, -1))[:, :32, :32]
    assert torch.equal(qkv, source.backbone.layers[0].attn.qkv.weight.unflatten(0, (3, -1)))


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
def test_everything_learns_but_the_fixed_positions(grower):
    """Within two steps every tensor that may change has had a gradient."""
    paradigm = Mae()
    source, target = (
        built(paradigm, mae(32, 1, 16, 1)),
        paradigm.build_model(Member("b", mae(48, 3, 32, 2))),
    )
    grow(source, target, grower)
    assert _dead(paradigm, target, raw) == {"backbone.pos_embed", "neck.decoder_pos_embed"}


def test_everything_of_simmim_learns():
    paradigm = Mae(pipeline=SIMMIM_PIPELINE)
    source, target = built(paradigm, simmim(8, 2)), paradigm.build_model(Member("b", simmim(16, 2)))
    grow(source, target, "lossless")
    assert _dead(paradigm, target, lambda seed: paradigm.example_batch(target, 2)) == set()


def _dead(paradigm, module, batches) -> set[str]:
    """Parameters that no gradient reached in two steps."""
    dead = set(dict(module.named_parameters()))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module.train()
    for step in range(2):
        batch = batches(seed=step)
        batch = (
            batch
            if "noise" in batch or batches is not raw
            else prepared(paradigm, batch, seed=step)
        )
        optimizer.zero_grad()
        paradigm.forward(module, batch)["loss"].backward()
        dead -= {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    return dead


def test_positions_that_are_fixed_are_carried_along():
    """A larger model's own table would be another function, as its waves depend on the width."""
    source, target = doubled(mae(32, 1, 16, 1)), doubled(mae(64, 1, 32, 1))
    own = target.backbone.pos_embed.clone()
    grow(source, target, "lossless")
    table, grown = source.backbone.pos_embed, target.backbone.pos_embed
    assert grown.shape == (1, PATCHES + 1, 64)
    assert not torch.equal(grown, own)
    assert torch.equal(grown, torch.cat([table, table], -1))
    assert not grown.requires_grad


def test_a_classifiers_hidden_layer_grows():
    small, large = (classifier(width) for width in (32, 48))
    small["head"]["hidden_dim"], large["head"]["hidden_dim"] = 20, 36
    source, target = doubled(small), doubled(large)
    randomised(source)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    assert describe(target).sizes["hidden"] == 36
    assert growth.error < 1e-9
