"""Shrink and perturb keeps the contract, and mixes what it says with what it says."""

from __future__ import annotations

import pytest
import torch

from compt import ConfigError, grow
from compt.growth.run import build_grower
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class TestShrinkPerturb(GrowerContract):
    grower = "shrink_perturb"


class TestAroundLossless(GrowerContract):
    grower = dict(type="shrink_perturb", grower="lossless", keep=0.9)


class TestKeepingAll(GrowerContract):
    grower = dict(type="shrink_perturb", grower="lossless", keep=1.0)


def grown(keep: float, inner="leading_block", sizes=((8, 2), (16, 4))):
    torch.manual_seed(3)
    source, target = randomised(ToyNet(*sizes[0]).double()), ToyNet(*sizes[1]).double()
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    growth = grow(source, target, dict(type="shrink_perturb", grower=inner, keep=keep), seed=5)
    return source, fresh, target.state_dict(), growth


@pytest.mark.parametrize("inner", ["leading_block", "lossless", "clone", "aki", "stack"])
def test_weights_are_mixed_and_nothing_else(inner):
    sizes = ((8, 2), (8, 4)) if inner == "stack" else ((8, 2), (16, 4))
    *_, whole, _ = grown(1.0, inner, sizes)
    _, fresh, mixed, growth = grown(0.6, inner, sizes)
    num_mixed = 0
    for name, value in mixed.items():
        # New blocks of lossless write nothing, before and after.
        if "norm" in name or not fresh[name].any() or not whole[name].any():
            assert torch.equal(value, whole[name]), name
        else:
            mixed_value = 0.6 * whole[name] + 0.8 * fresh[name]
            expected = torch.where(whole[name] == fresh[name], fresh[name], mixed_value)
            assert torch.allclose(value, expected), name
            num_mixed += 1
    assert num_mixed > 5
    assert not growth.function_preserving
    assert "0.6 of what is inherited" in growth.reason


def test_by_hand():
    """3-4-5: 0.8 of the source and 0.6 of the fresh value."""
    source, fresh, mixed, _ = grown(0.8)
    corner = 0.8 * source.embed.weight + 0.6 * fresh["embed.weight"][:8]
    assert torch.allclose(mixed["embed.weight"][:8], corner)
    assert torch.equal(mixed["embed.weight"][8:], fresh["embed.weight"][8:])


def test_keeping_all_is_the_other_grower():
    *_, mixed, growth = grown(1.0, "lossless")
    torch.manual_seed(3)
    source, target = randomised(ToyNet(8, 2).double()), ToyNet(16, 4).double()
    grow(source, target, "lossless", seed=5)
    assert all(torch.equal(mixed[name], value) for name, value in target.state_dict().items())
    assert growth.function_preserving


def test_moments_are_not_mixed():
    grower = build_grower(dict(type="shrink_perturb", grower="clone"))
    even = grower.without_noise()
    assert (even.keep, grower.keep) == (1.0, 0.7)
    assert (even.grower.noise, grower.grower.noise) == (0.0, 1.0)


@pytest.mark.parametrize("keep", [-0.1, 1.1, "half"])
def test_a_share_that_is_none_is_refused(keep):
    with pytest.raises(ConfigError, match="keep"):
        build_grower(dict(type="shrink_perturb", keep=keep))


def test_a_grower_of_whole_models_is_refused():
    with pytest.raises(ConfigError, match="grows whole models"):
        build_grower(dict(type="shrink_perturb", grower="scratch"))
