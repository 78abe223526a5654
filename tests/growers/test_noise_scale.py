"""Noise between copies is as large as the weights are, of shares or of the larger width."""

from __future__ import annotations

import pytest
import torch

from compt import grow
from compt.errors import ConfigError
from compt.registry import GROWERS
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


@pytest.mark.parametrize("grower", ["clone", "lossless"])
def test_mup_noise_grows_by_the_root_of_the_copies_in_hidden_tensors_alone(grower):
    source = randomised(ToyNet(64, 1).double())
    scales = {}
    for scale in ("shares", "mup"):
        target = ToyNet(256, 1).double()
        growth = grow(source, target, dict(type=grower, noise_scale=scale))
        assert growth.function_preserving
        assert growth.error < 1e-11
        for name in ("blocks.0.fc1.weight", "head.weight"):
            small, large = (net.get_parameter(name) for net in (source, target))
            copies = large[: len(small)].unflatten(1, (4, 64))
            noise = copies - copies.mean(1, keepdim=True)
            share = small.square().mean().sqrt() / 4
            if grower == "clone":
                # Of all copies of a row the noise is one draw, and so of the right size too.
                assert torch.allclose(copies.sum(1), small)
            scales[scale, name] = (noise.square().mean().sqrt() / share).item()
    assert scales["shares", "blocks.0.fc1.weight"] == pytest.approx(1.0, rel=0.1)
    assert scales["mup", "blocks.0.fc1.weight"] == pytest.approx(2.0, rel=0.1)
    for scale in ("shares", "mup"):
        assert scales[scale, "head.weight"] == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("grower", ["clone", "lossless"])
def test_other_scales_are_refused(grower):
    with pytest.raises(ConfigError, match="noise_scale: 'rms' is none of 'shares', 'mup'"):
        GROWERS.build(dict(type=grower, noise_scale="rms"))
