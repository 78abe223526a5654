"""Stacking keeps its contract, follows its orders of blocks, and refuses what it cannot do."""

from __future__ import annotations

import pytest
import torch

from compt import GrowthError, grow
from compt.growers.stack import Stack
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class DepthOnly(GrowerContract):
    """Pairs of one width."""

    def pairs(self):
        return [
            (randomised(ToyNet(16, small, rms=rms).double()), ToyNet(16, large, rms=rms).double())
            for small, large in ((2, 4), (2, 3), (3, 3))
            for rms in (False, True)
        ]

    def chain(self):
        members = [
            dict(name=name, model=dict(width=16, depth=depth), iters=3)
            for name, depth in zip("abc", (1, 2, 4))
        ]
        return {**super().chain(), "chain": members}


class TestStack(DepthOnly):
    grower = "stack"


class TestSolar(DepthOnly):
    grower = dict(type="stack", order="solar", blocks="zero")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("stack", [0, 1, 2, 0, 1, 2]),
        ("interleave", [0, 0, 1, 1, 2, 2]),
        ("solar", [0, 1, 2, 0, 1, 2]),
    ],
)
def test_the_orders_of_blocks_at_twice_the_depth(order, expected):
    assert [Stack(order=order).source_block_index(i, 3, 6) for i in range(6)] == expected


def test_solar_doubles_the_middle():
    """32 blocks grow to 48 as SOLAR's did, by the first 24 and the last 24."""
    indices = [Stack(order="solar").source_block_index(i, 32, 48) for i in range(48)]
    assert indices == [*range(24), *range(8, 32)]


@pytest.mark.parametrize("order", ["stack", "interleave", "solar"])
def test_every_order_is_onto_and_in_range(order):
    for small in range(1, 13):
        for large in range(small, (2 * small if order == "solar" else 48) + 1):
            indices = [Stack(order=order).source_block_index(i, small, large) for i in range(large)]
            assert sorted(set(indices)) == list(range(small))


@pytest.mark.parametrize("blocks", ["copy", "zero"])
def test_stack_fills_blocks_by_its_order(blocks):
    source, target = randomised(ToyNet(8, 2)), ToyNet(8, 4)
    growth = grow(source, target, dict(type="stack", blocks=blocks))
    assert growth.function_preserving is (blocks == "zero")
    for i in range(4):
        assert torch.equal(target.blocks[i].fc1.weight, source.blocks[i % 2].fc1.weight)
        if blocks == "copy" or i < 2:
            assert torch.equal(target.blocks[i].fc2.weight, source.blocks[i % 2].fc2.weight)
        else:
            assert not target.blocks[i].fc2.weight.any()


def test_stack_refuses_what_it_cannot_do():
    with pytest.raises(
        GrowthError, match="grows depth only, and the axis 'embed' changes from 8 to 16"
    ):
        grow(ToyNet(8, 1), ToyNet(16, 2), "stack")
    for grower in (
        dict(type="stack", order="solar"),
        dict(type="compose", width="clone", depth=dict(type="stack", order="solar")),
    ):
        with pytest.raises(
            GrowthError, match="'blocks' grows from 1 to 3 blocks, and 'solar' doubles at most"
        ):
            grow(ToyNet(8, 1), ToyNet(8, 3), grower)
