"""Predicted blocks keep the contract of growers, and follow a law that their neighbours show."""

from __future__ import annotations

import pytest
import torch

from compt import ConfigError, GrowthError, grow
from compt.growers.lesa import Between, Lesa
from compt.growth.run import build_grower
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class TestLesa(GrowerContract):
    grower = dict(type="lesa", steps=5)

    def pairs(self):
        return [
            (randomised(ToyNet(16, small, rms=rms).double()), ToyNet(16, large, rms=rms).double())
            for small, large in ((3, 5), (4, 5), (3, 3))
            for rms in (False, True)
        ]

    def chain(self):
        members = [
            dict(name=name, model=dict(width=16, depth=depth), iters=3)
            for name, depth in zip("abc", (3, 4, 6))
        ]
        return {**super().chain(), "chain": members}


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((4, 6), [0, 1, 1, 2, 2, 3]),
        ((3, 5), [0, 0, 1, 1, 2]),
        ((5, 5), [0, 1, 2, 3, 4]),
        ((32, 48), [*range(15), *(i for i in range(15, 31) for _ in "ab"), 31]),
    ],
)
def test_new_blocks_stand_between_the_last_ones(depths, expected):
    small, large = depths
    assert [Lesa().source_block_index(i, small, large) for i in range(large)] == expected


def test_what_is_no_matrix_is_the_mean_of_both_neighbours():
    source, target = randomised(ToyNet(8, 3)), ToyNet(8, 5)
    growth = grow(source, target, dict(type="lesa", steps=0))
    for new, (below, above) in {1: (0, 1), 3: (1, 2)}.items():
        for name in ("norm.weight", "fc1.bias", "fc2.weight"):
            own = target.get_parameter(f"blocks.{new}.{name}")
            both = [source.get_parameter(f"blocks.{index}.{name}") for index in (below, above)]
            assert torch.allclose(own, sum(both) / 2)
            assert growth.params[f"blocks.{new}.{name}"] == "expanded"
    assert torch.equal(target.blocks[2].fc1.weight, source.blocks[1].fc1.weight)
    assert (growth.function_preserving, growth.reason) == (False, "new blocks are predicted")


def test_a_law_of_depth_is_learned():
    """Blocks turn in a plane, where the mean of two neighbours is always too short."""
    plane = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0))
    angles = 0.9 * torch.arange(8.0)
    coordinates = torch.stack([a.cos() * plane[0] + a.sin() * plane[1] for a in angles])
    network = Between(coordinates, 64, torch.Generator().manual_seed(1))

    def miss() -> float:
        missed = network(coordinates[:-2], coordinates[2:]) - coordinates[1:-1]
        return missed.square().mean().item()

    mean_of_both = miss()
    network.learn(coordinates, 300, 1e-2)
    assert miss() < 0.05 * mean_of_both


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ((8, 3), (16, 5), "The grower lesa grows depth only, and the axis 'embed' changes"),
        ((8, 2), (8, 3), "'blocks' grows from 2 to 3 blocks; lesa learns from 3 at least"),
        ((8, 3), (8, 6), "'blocks' grows from 3 to 6 blocks; lesa learns from 3 at least, and"),
    ],
)
def test_what_it_cannot_do_is_refused(small, large, message):
    with pytest.raises(GrowthError, match=message):
        grow(ToyNet(*small), ToyNet(*large), "lesa")


def test_it_is_no_part_of_a_composition():
    with pytest.raises(ConfigError, match="depth='lesa' grows whole models, not tensor by tensor"):
        build_grower(dict(type="compose", width="clone", depth="lesa"))
