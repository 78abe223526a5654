"""Entries of a grown member are new where they hold nothing of its source."""

from __future__ import annotations

import pytest
import torch

from compt.growers.leading_block import LeadingBlock
from compt.growth.optimizer_state import new_entries
from compt.testing.toy import TiedNet, ToyNet
from tests.growth.states import vit


def outside(shape, *corner):
    """True outside the leading corner."""
    mask = torch.ones(shape, dtype=torch.bool)
    mask[tuple(slice(0, n) for n in corner)] = False
    return mask


def test_leading_block_leaves_all_outside_the_corner_new():
    source, target = ToyNet(2, 1), ToyNet(3, 2)
    sizes = {name: tuple(param.shape) for name, param in source.named_parameters()}
    masks = new_entries(source, target, "leading_block")
    assert list(masks) == [name for name, _ in target.named_parameters()]
    for name, mask in masks.items():
        corner = sizes[name.replace("blocks.1", "blocks.0")]
        assert torch.equal(mask, outside(mask.shape, *corner)), name
    assert masks["blocks.1.fc1.weight"].tolist() == [[False, False, True]] * 4 + [[True] * 3] * 2


@pytest.mark.parametrize("fused", ["split", "whole"])
def test_leading_block_of_fused_tensors(fused):
    masks = new_entries(vit(4, 1, 1), vit(8, 1, 2), dict(type="leading_block", fused=fused))
    qkv = masks["blocks.0.attn.qkv.weight"]
    expected = (
        outside((3, 8, 8), 3, 4, 4).reshape(24, 8) if fused == "split" else outside((24, 8), 12, 4)
    )
    assert torch.equal(qkv, expected)
    assert torch.equal(masks["blocks.0.attn.qkv.bias"], expected[:, 0])


@pytest.mark.parametrize("rms", [False, True])
def test_lossless_adds_fresh_rows_and_zeroed_columns_and_pads_that_hold_means_are_not_new(rms):
    """8 -> 20 is two copies and four pads, and 16 of 40 hidden units are inherited.

    Pads of RMSNorm are zero, and so new.
    """
    masks = new_entries(ToyNet(8, 1, rms=rms), ToyNet(20, 1, rms=rms), "lossless")
    stream = 16 if rms else 20
    expected = {
        "embed.weight": outside((20, 8), stream, 8),
        "embed.bias": outside((20,), stream),
        "blocks.0.norm.weight": outside((20,), 20),
        "blocks.0.fc1.weight": outside((40, 20), 16, 16),
        "blocks.0.fc1.bias": outside((40,), 16),
        "blocks.0.fc2.weight": outside((20, 40), stream, 16),
        "blocks.0.fc2.bias": outside((20,), stream),
        "norm.weight": outside((20,), 20),
        "head.weight": outside((10, 20), 10, 16),
        "head.bias": outside((10,), 10),
    }
    if not rms:
        expected |= {name: outside((20,), 16) for name in ("blocks.0.norm.bias", "norm.bias")}
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), name


@pytest.mark.parametrize(
    ("grower", "new"), [("scratch", True), ("clone", False), ("lossless", False)]
)
def test_all_or_nothing_is_new(grower, new):
    """From scratch everything is, and nothing where a model is as large as its source."""
    masks = new_entries(ToyNet(8, 2), ToyNet(16 if new else 8, 2), grower)
    assert all(bool(mask.all()) is new and bool(mask.any()) is new for mask in masks.values())


class Drawn(LeadingBlock):
    """A leading block whose other entries the grower draws itself."""

    def expand(self, source, target, pair):
        return super().expand(
            source, torch.randn(target.shape, generator=pair.generator, dtype=target.dtype), pair
        )


def test_what_the_grower_draws_itself_is_new_too():
    masks = new_entries(ToyNet(2, 1), ToyNet(3, 1), Drawn(), seed=5)
    assert torch.equal(masks["head.weight"], outside((10, 3), 10, 2))


def test_what_a_new_block_writes_is_new():
    masks = new_entries(ToyNet(8, 1), ToyNet(16, 2), "clone")
    assert {name for name, mask in masks.items() if mask.any()} == {
        "blocks.1.fc2.weight",
        "blocks.1.fc2.bias",
    }
    assert masks["blocks.1.fc2.weight"].all()


def test_tied_weights_come_once():
    masks = new_entries(TiedNet(8, 1), TiedNet(20, 1), "lossless")
    assert "embed.weight" in masks
    assert "head.weight" not in masks
    assert not masks["embed.weight"].any()
    masks = new_entries(TiedNet(8, 1), TiedNet(20, 1), "leading_block")
    assert torch.equal(masks["embed.weight"], outside((8, 20), 8, 8))
