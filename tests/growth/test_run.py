"""A pair is grown by the built-in grower unless another is named, and claims are measured."""

from __future__ import annotations

import json
import math

import pytest

from compt import grow
from compt.errors import PluginError
from compt.growers.lossless import Lossless
from compt.growth.convert import grow_checkpoint
from compt.growth.run import build_grower
from compt.testing.contracts import randomised
from compt.testing.toy import Toy, ToyNet
from tests.packages import GROWER


@pytest.fixture
def namesake(install):
    """Another package's grower of the name 'lossless'."""
    install("alpha", {"lossless": "alpha_m:Fake"}, {"alpha_m": GROWER})


@pytest.mark.usefixtures("namesake")
def test_the_default_grower_is_the_built_in():
    with pytest.raises(PluginError, match="declared by 2 packages"):
        build_grower("lossless")
    assert grow(randomised(ToyNet(8, 1)), ToyNet(12, 2)).function_preserving


@pytest.mark.usefixtures("namesake")
def test_so_it_is_for_checkpoints_and_is_reported_by_its_short_name(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target.json"
    source.mkdir()
    Toy().export(randomised(ToyNet(8, 1)), source)
    target.write_text(json.dumps(dict(width=12, depth=2)))
    report = grow_checkpoint(source, str(target), tmp_path / "out", paradigm="toy")
    assert (report["grower"], report["function_preserving"]) == ("lossless", True)


def test_a_grower_is_named_configured_or_an_instance():
    grower = Lossless(noise=0.5)
    assert build_grower(grower) is grower
    assert build_grower("compt:lossless").noise == 1.0
    assert build_grower(dict(type="compt:lossless", noise=0.25)).noise == 0.25


class NotANumber(ToyNet):
    def forward(self, x):
        return super().forward(x) * math.nan


def test_outputs_that_are_no_numbers_refute_a_claim():
    growth = grow(randomised(ToyNet(8, 1)), NotANumber(8, 1))
    assert math.isnan(growth.error)
    assert not growth.function_preserving
    assert "the outputs differ by nan" in growth.reason
