"""Cloning keeps its contract, is exact on real models, and gives what is worked out by hand."""

from __future__ import annotations

import pytest
import torch

from compt import grow
from compt.growers.clone import Clone
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class TestClone(GrowerContract):
    grower = "clone"


class TestCloneWithCopiedBlocks(GrowerContract):
    grower = dict(type="clone", blocks="copy", noise=0.5)


@pytest.mark.parametrize("group", [(4, 2, 8, 2), (4, 2, 8, 4), (4, 4, 8, 8), (4, 1, 12, 3)])
def test_clone_is_exact_for_grouped_queries(group):
    models = pytest.importorskip("tests.layouts.language_models")
    heads, kv, more, more_kv = group
    source, target = models.llama(48, 1, heads, kv), models.llama(96, 1, more, more_kv)
    growth = grow(randomised(source), target, "clone")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-11


def test_clone_is_exact_for_clip_with_ln_pre():
    pytest.importorskip("open_clip")
    from tests.layouts.test_open_clip import clip

    source, target = clip(32, 1, 32, 1), clip(64, 2, 96, 2, embed_dim=64)
    growth = grow(randomised(source.double()), target.double(), "clone")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-11


def test_clone_elsewhere_says_that_it_is_close():
    growth = grow(randomised(ToyNet(16, 1).double()), ToyNet(24, 1).double(), "clone")
    assert not growth.function_preserving
    assert "'embed' grows from 16 to 24: tiling is exact at whole multiples only" in growth.reason
    assert 1e-6 < growth.error < 0.5


def test_clone_by_hand():
    """Two units grow to four, with writers tiled and readers halved.

    The noise of a unit's two copies sums to 0.
    """
    source, target = ToyNet(2, 1).double(), ToyNet(4, 1).double()
    with torch.no_grad():
        source.embed.bias.copy_(torch.tensor([1.0, 3.0]))
        source.head.weight.fill_(2.0)
        source.norm.weight.copy_(torch.tensor([5.0, 7.0]))
    grow(source, target, Clone(noise=1.0))
    assert target.embed.bias.tolist() == [1.0, 3.0, 1.0, 3.0]
    assert target.norm.weight.tolist() == [5.0, 7.0, 5.0, 7.0]
    head = target.head.weight
    assert torch.allclose(head[:, :2] + head[:, 2:], torch.full((10, 2), 2.0, dtype=torch.float64))
    noise = head[:, :2].detach() - 1.0
    assert noise.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.4), (
        "of the rms of the split weights"
    )


def test_clone_at_odd_sizes_shares_out_by_the_number_of_copies():
    """Three units grow to five, so that the first two have two copies and the third has one."""
    source, target = ToyNet(3, 1).double(), ToyNet(5, 1).double()
    with torch.no_grad():
        source.head.weight.fill_(6.0)
    grow(source, target, Clone(noise=0.5))
    head = target.head.weight
    assert torch.allclose(head[:, 2], torch.full((10,), 6.0, dtype=torch.float64))
    assert torch.allclose(head[:, 0] + head[:, 3], torch.full((10,), 6.0, dtype=torch.float64))


def test_copies_part_ways_only_with_noise():
    def after_steps(grower) -> float:
        target = ToyNet(16, 1, dropout=0.0)
        grow(randomised(ToyNet(8, 1)), target, grower)
        optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
        for step in range(5):
            x = torch.randn(64, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(target(x), torch.arange(64) % 10).backward()
            optimizer.step()
        return (target.embed.weight[:8] - target.embed.weight[8:]).abs().max().item()

    with pytest.warns(UserWarning, match="stay equal for ever"):
        silent = Clone(noise=0)
    assert after_steps(silent) < 1e-6
    assert after_steps(Clone()) > 1e-3
