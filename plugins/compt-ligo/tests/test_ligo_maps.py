"""The maps before training, and one growth worked by hand."""

from __future__ import annotations

import pytest
import torch
from compt_ligo.expansion import Expansion, Pair
from compt_ligo.grower import schedule
from compt_ligo.maps import depth_mix, shares, tiling, width_maps
from torch import Tensor, nn

import compt

EXACT = dict(rtol=1e-14, atol=1e-14)


def numbers(*rows: object) -> Tensor:
    """A float64 tensor."""
    return torch.tensor(rows, dtype=torch.float64)


def test_tiling_repeats_units_in_order() -> None:
    """Row t is unit t % S."""
    assert tiling(2, 5).argmax(1).tolist() == [0, 1, 0, 1, 0]
    assert tiling(2, 5).sum(1).tolist() == [1.0] * 5


@pytest.mark.parametrize(("small", "large"), [(1, 4), (2, 4), (3, 7), (64, 96)])
def test_shares_of_a_unit_sum_to_one_and_differ(small: int, large: int) -> None:
    """They are positive, and even only where the spread is 0."""
    split = shares(small, large, 0.5, torch.Generator().manual_seed(0))
    assert (split > 0).all()
    torch.testing.assert_close(
        tiling(small, large).T @ split, torch.ones(small, dtype=torch.float64), **EXACT
    )
    assert abs(split[0] - split[small]) > 1e-3
    even = shares(small, large, 0.0, torch.Generator())
    torch.testing.assert_close(
        even * (tiling(small, large) @ tiling(small, large).sum(0)), torch.ones_like(even)
    )


@pytest.mark.parametrize("isometry", [False, True])
def test_readers_undo_writers(isometry: bool) -> None:
    """Features, whose maps are isometries, keep their dot products too."""
    generator = torch.Generator().manual_seed(0)
    writes, reads = width_maps(3, 8, isometry=isometry, spread=0.5, generator=generator)
    torch.testing.assert_close(reads.T @ writes, torch.eye(3, dtype=torch.float64), **EXACT)
    if isometry:
        torch.testing.assert_close(writes.T @ writes, torch.eye(3, dtype=torch.float64), **EXACT)
        assert not torch.allclose(writes[0], writes[3])
    else:
        assert torch.equal(writes, tiling(3, 8))


def test_a_mix_starts_at_one_source_block_or_none() -> None:
    """None is a row of zeros."""
    assert depth_mix([0, None, 1], 2).tolist() == [[1, 0], [0, 0], [0, 1]]


def test_the_rate_rises_and_falls() -> None:
    """Few steps have no rise, more rise over a tenth of them and fall to almost nothing."""
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 9
    assert rates[50] == pytest.approx(0.5)
    assert 0 < rates[99] < 1e-3
    assert schedule(0, 1) == 1


class Net(nn.Module):
    """A linear layer in, a stack of linear layers, and a linear layer out."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(1, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 1, bias=False)
        self.double()


@compt.LAYOUTS.register_module(name=f"{__name__}.Net")
class NetLayout(compt.Layout):
    """Named axes of Net."""

    patterns = {
        "first.weight": "embed <- 1",
        "first.bias": "embed",
        "blocks.{block}.weight": "embed <- embed",
        "blocks.{block}.bias": "embed",
        "last.weight": "1 <- embed",
    }


def test_a_growth_by_hand() -> None:
    """Grow 2 -> 3 units and 2 -> 3 blocks by maps of whole numbers.

    Each matrix becomes W' = M_write (sum of mix W) M_read^T.
    """
    source, target = Net(2, 2), Net(3, 3)
    with torch.no_grad():
        source.first.weight.copy_(numbers([1], [2]))
        source.first.bias.copy_(numbers(3, 5))
        source.blocks[0].weight.copy_(numbers([1, 2], [3, 4]))
        source.blocks[1].weight.copy_(numbers([0, 1], [1, 0]))
        source.last.weight.copy_(numbers([1, -1]))
    pair = Pair(compt.describe(source), compt.describe(target))
    bundles = pair.bundles()
    maps = pair.maps(bundles, 0.5, torch.Generator())
    maps["embed", "writes"] = numbers([1, 0], [0, 1], [1, 1])
    maps["embed", "reads"] = numbers([1, 0], [0, 1], [2, -1])
    maps["blocks.{block}.weight", "mix"] = numbers([1, 0], [2, 1], [0, 1])
    tensors = Expansion(bundles, compt.tensors_of(source), compt.tensors_of(target), torch.float64)(
        maps
    )
    assert tensors["first.weight"].tolist() == [[1], [2], [3]]
    assert tensors["first.bias"].tolist() == [3, 5, 8]
    assert tensors["last.weight"].tolist() == [[1, -1, 3]]
    assert tensors["blocks.0.weight"].tolist() == [[1, 2, 0], [3, 4, 2], [4, 6, 2]]
    assert tensors["blocks.1.weight"].tolist() == [[2, 5, -1], [7, 8, 6], [9, 13, 5]]
    assert tensors["blocks.2.weight"].tolist() == [[0, 1, -1], [1, 0, 2], [1, 1, 1]]


def test_the_start_by_hand() -> None:
    """Grow 1 -> 2 units with shares p and 1 - p, and two blocks to three.

    The second block repeats the first and writes nothing yet.
    """
    source, target = Net(1, 2), Net(2, 3)
    growth = compt.grow(source, target, dict(type="ligo", steps=0), seed=1)
    first, second = target.last.weight[0] / source.last.weight[0]
    torch.testing.assert_close(first + second, torch.ones_like(first), **EXACT)
    assert 0.2 < first < 0.8 and abs(first - 0.5) > 0.01
    row = torch.stack([first, second])
    assert torch.equal(target.first.weight, source.first.weight.expand(2, 1))
    for block, origin in ((0, 0), (2, 1)):
        torch.testing.assert_close(
            target.blocks[block].weight, source.blocks[origin].weight * row.expand(2, 2), **EXACT
        )
        assert torch.equal(target.blocks[block].bias, source.blocks[origin].bias.expand(2))
    assert not target.blocks[1].weight.any() and not target.blocks[1].bias.any()
    assert (
        growth.params["blocks.1.weight"] == "initialised"
        and growth.params["blocks.0.weight"] == "expanded"
    )
