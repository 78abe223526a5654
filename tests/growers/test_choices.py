"""Growers do as their options say, and refuse options that they do not know."""

from __future__ import annotations

import pytest
import torch

from compt import grow
from compt.errors import ConfigError
from compt.registry import GROWERS
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class TestCompose(GrowerContract):
    grower = dict(type="compose", width="clone", depth=dict(type="stack", blocks="zero"))


class TestLosslessOfCopies(GrowerContract):
    grower = dict(type="lossless", fill="copy", blocks="fresh")


def test_compose_takes_width_from_one_and_depth_from_the_other():
    source, target = randomised(ToyNet(8, 2)), ToyNet(16, 4)
    grow(source, target, dict(type="compose", width="leading_block", depth="stack"))
    for i in range(4):
        assert torch.equal(target.blocks[i].fc1.weight[:16, :8], source.blocks[i % 2].fc1.weight)


def test_lossless_fills_as_its_options_say():
    def grown(**options):
        torch.manual_seed(3)
        target = ToyNet(5, 2).double()
        fresh = {name: value.clone() for name, value in target.state_dict().items()}
        torch.manual_seed(4)
        source = randomised(ToyNet(4, 1).double())
        grow(source, target, dict(type="lossless", **options))
        return source, target, fresh

    source, target, fresh = grown(fill="init")
    assert torch.equal(target.blocks[0].fc1.weight[8:, 4], fresh["blocks.0.fc1.weight"][8:, 4])
    source, target, fresh = grown(fill="copy")
    assert torch.allclose(target.blocks[0].fc1.weight[8:, :4], source.blocks[0].fc1.weight[:2])
    source, target, fresh = grown(blocks="fresh")
    assert torch.equal(target.blocks[1].fc1.weight, fresh["blocks.1.fc1.weight"])
    assert not target.blocks[1].fc2.weight.any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="clone", blocks="none"), "blocks: 'none' is none of 'zero', 'copy'"),
        (dict(type="clone", noise=-1), "noise: -1"),
        (dict(type="stack", order="up"), "order: 'up' is none of"),
        (dict(type="stack", blocks="up"), "blocks: 'up' is none of"),
        (dict(type="lossless", fill="up"), "fill: 'up' is none of"),
        (dict(type="lossless", blocks="zero"), "blocks: 'zero' is none of"),
        (
            dict(type="compose", width="scratch", depth="stack"),
            "width='scratch' grows whole models",
        ),
        (dict(type="compose", width="clone"), "needs the argument 'depth'"),
    ],
)
def test_bad_choices(config, message):
    with pytest.raises(ConfigError, match=message):
        GROWERS.build(config)
