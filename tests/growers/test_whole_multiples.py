"""Growers that mean to be exact are so at whole multiples of every width."""

from __future__ import annotations

import pytest

from compt import grow
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet

EXACT = [
    "clone",
    dict(
        type="compose",
        width=dict(type="clone"),
        depth=dict(type="stack", order="solar", blocks="zero"),
    ),
    dict(type="lossless", fill="copy"),
    dict(type="lossless", blocks="fresh"),
    dict(type="compose", width="lossless", depth=dict(type="stack", blocks="zero")),
]


@pytest.mark.parametrize("grower", EXACT, ids=str)
@pytest.mark.parametrize("rms", [False, True])
def test_whole_multiples_are_exact(grower, rms):
    for small, large in (((12, 1), (24, 2)), ((8, 2), (24, 3)), ((8, 2), (8, 4))):
        source, target = (
            randomised(ToyNet(*small, rms=rms).double()),
            ToyNet(*large, rms=rms).double(),
        )
        growth = grow(source, target, grower)
        assert growth.function_preserving, growth.reason
        assert growth.error < 1e-12


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("grower", EXACT, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_whole_multiples_of_language_models_are_exact(family, grower, tied):
    models = pytest.importorskip("tests.layouts.language_models")
    sizes = {
        "llama": (models.llama, (48, 2, 4, 2, 64), (96, 4, 8, 4, 128)),
        "gpt2": (models.gpt2, (48, 2), (96, 3)),
        "gpt_neox": (models.neox, (48, 2, 64), (96, 3, 192)),
    }
    make, small, large = sizes[family]
    source, target = (make(*size, tie_word_embeddings=tied) for size in (small, large))
    growth = grow(randomised(source), target, grower)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-11
