"""Built-in growers keep the shipped contract, and give what is worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compt import GrowthError, describe, grow
from compt.growers.lossless import Lossless
from compt.growth.matching import source_block
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class TestLossless(GrowerContract):
    grower = "lossless"


class TestLeadingBlock(GrowerContract):
    grower = "leading_block"


class TestWholeLeadingBlock(GrowerContract):
    grower = dict(type="leading_block", fused="whole")


class TestScratch(GrowerContract):
    grower = "scratch"


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize(
    ("small", "large"),
    [((12, 1), (20, 5)), ((16, 3), (17, 4)), ((8, 2), (24, 3)), ((8, 5), (31, 5))],
)
def test_lossless_is_exact_at_any_width_and_depth(small, large, rms):
    source, target = randomised(ToyNet(*small, rms=rms).double()), ToyNet(*large, rms=rms).double()
    growth = grow(source, target, "lossless")
    assert growth.function_preserving
    assert growth.error < 1e-12


def test_lossless_stays_exact_over_two_hops():
    nets = [ToyNet(*size).double() for size in ((12, 1), (20, 2), (33, 5))]
    randomised(nets[0])
    grow(nets[0], nets[1])
    grow(nets[1], nets[2])
    x = torch.randn(5, 8, dtype=torch.float64)
    assert torch.allclose(nets[0].eval()(x), nets[2].eval()(x), atol=1e-11)


def test_same_size_is_bit_identical():
    source, target = randomised(ToyNet(16, 2)), ToyNet(16, 2)
    growth = grow(source, target)
    assert set(growth.params.values()) == {"copied"}
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values())
    )


@pytest.mark.parametrize("small", range(1, 13))
def test_depth_maps_are_onto_and_in_range(small):
    for large in range(small, 49):
        assert sorted({source_block(i, small, large) for i in range(large)}) == list(range(small))


def test_copies_part_ways():
    """Readers of duplicated units differ at once, and without noise would stay equal."""
    source = randomised(ToyNet(16, 1))
    with pytest.warns(UserWarning, match="stay equal for ever"):
        even = Lossless(noise=0.0)
    for grower, equal in ((Lossless(), False), (even, True)):
        target = ToyNet(32, 1)
        grow(source, target, grower)
        columns = target.blocks[0].fc1.weight[:32]
        assert torch.equal(columns[:, :16], columns[:, 16:]) is equal


def test_lossless_by_hand():
    """Width 2 grows to 3 by one pad with the mean.

    The scale is sqrt(3 / 2), and the norm's gains are divided by it.
    """
    source, target = ToyNet(2, 1).double(), ToyNet(3, 1).double()
    with torch.no_grad():
        source.embed.weight.zero_()
        source.embed.bias.copy_(torch.tensor([1.0, 3.0]))
        source.norm.weight.copy_(torch.tensor([2.0, 5.0]))
        source.norm.bias.copy_(torch.tensor([7.0, 9.0]))
    grow(source, target)
    scale = 1.5**0.5
    assert torch.allclose(
        target.embed.bias, scale * torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    )
    assert torch.allclose(
        target.norm.weight[:2], torch.tensor([2.0, 5.0], dtype=torch.float64) / scale
    )
    assert target.norm.bias.tolist() == [7.0, 9.0, 0.0]


class _Fused(nn.Module):
    """A fused projection, to see where its corners go."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(2, 3 * heads, bias=False)
        self.heads = heads


@pytest.fixture
def fused_layout():
    from compt import LAYOUTS, Layout

    name = f"{__name__}._Fused"

    @LAYOUTS.register_module(name=name)
    class FusedLayout(Layout):
        patterns = {"qkv.weight": "(3 heads head_dim) embed"}

        def sizes(self, module):
            return {"heads": module.heads}

    yield
    LAYOUTS.module_dict.pop(name)


@pytest.mark.parametrize(
    ("fused", "rows"),
    [("split", [1, None, 2, None, 3, None]), ("whole", [1, 2, 3, None, None, None])],
)
def test_leading_block_of_a_fused_tensor_by_hand(fused_layout, fused, rows):
    """q, k, v = 1, 2, 3 of one head grow to two heads.

    Each goes to its own corner, or all to the first rows.
    """
    source, target = _Fused(1), _Fused(2)
    with torch.no_grad():
        source.qkv.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
        target.qkv.weight.fill_(-1)
    grow(source, target, dict(type="leading_block", fused=fused))
    assert target.qkv.weight[:, 0].tolist() == [-1.0 if row is None else row for row in rows]


def test_scratch_takes_any_pair():
    growth = grow(ToyNet(32, 4), ToyNet(16, 1), "scratch")
    assert set(growth.params.values()) == {"initialised"}
    assert len(growth.dropped) == len(describe(ToyNet(32, 4)).params)


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ((32, 1), (16, 1), "'embed.weight': the axis 'embed' would shrink from 32 to 16"),
        ((16, 3), (16, 2), "shrink from 3 to 2 blocks"),
    ],
)
def test_shrinking_is_refused_by_name(grower, small, large, message):
    with pytest.raises(GrowthError, match=message):
        grow(ToyNet(*small), ToyNet(*large), grower)


def test_wrapped_modules_grow_alike():
    source, target, wrapped = randomised(ToyNet(8, 1)), ToyNet(16, 1), ToyNet(16, 1)
    wrapped.load_state_dict(target.state_dict())
    grow(source, target)
    grow(nn.DataParallel(source), torch.compile(wrapped, backend="eager"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(target.state_dict().values(), wrapped.state_dict().values())
    )
