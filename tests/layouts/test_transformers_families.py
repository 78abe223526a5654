"""Every family of decoders: exact growth in width and depth, or the reason why not."""

from __future__ import annotations

import pytest
import torch

from compt import GrowthError, describe, grow
from compt.growth.axes import find_layout
from compt.testing import LayoutContract
from compt.testing.contracts import randomised
from tests.layouts.language_models import CASES, HOPS, PAIRS, experts, falcon, gemma, is_tied

FAMILIES = [name for name in CASES if name not in PAIRS]
"""Those that ``test_transformers.py`` leaves out."""

EVERY_HOP = [(name, hop) for name in FAMILIES for hop in HOPS]


@pytest.mark.parametrize(("name", "hop"), EVERY_HOP)
def test_lossless_is_exact_or_says_why_not(name, hop):
    source, target = CASES[name].pair(hop)
    growth = grow(source, target)
    assert not growth.dropped
    reason = CASES[name].reasons.get(hop)
    if reason:
        assert not growth.function_preserving
        assert reason in growth.reason
        assert growth.error > 1e-3
    else:
        assert growth.function_preserving, growth.reason
        assert growth.error < 1e-9


@pytest.mark.parametrize(
    "name", ["olmo3", "phi3", "gemma3", "gpt_j", "falcon", "mixtral", "gpt_oss", "mamba2"]
)
def test_clone_is_exact_at_whole_multiples(name):
    growth = grow(*CASES[name].pair("whole"), "clone")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9


@pytest.mark.parametrize("name", ["olmo3", "phi3", "gemma3", "gpt_j", "falcon", "mixtral"])
def test_a_tied_head_grows_exactly(name):
    source, target = CASES[name].pair("whole", tie_word_embeddings=True)
    growth = grow(source, target)
    assert is_tied(target)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9


WINDOWED = {"gemma2", "gemma3", "gpt_oss", "olmo3"}
"""Families some of whose layers see a window of four tokens."""


@pytest.mark.parametrize("name", FAMILIES)
def test_the_probe_runs_the_model_beyond_its_windows(name):
    model = CASES[name].pair("whole")[0].eval()
    tokens = torch.randint(
        61, (2, 28 if name in WINDOWED else 24), generator=torch.Generator().manual_seed(3)
    )
    with torch.no_grad():
        logits = find_layout(model).probe(model, torch.Generator().manual_seed(3))["logits"]
        assert torch.equal(logits, model(tokens).logits[:, -24:])


@pytest.mark.parametrize("name", FAMILIES)
def test_plans_see_the_same_axes(name):
    """As a plan describes members, built and described under the meta device."""
    case = CASES[name]
    with torch.device("meta"):
        planned = describe(case.make(*case.source))
    assert planned == describe(case.make(*case.source))


def test_what_multiplies_queries_and_embeddings_is_made_up_for():
    """Gemma's root of the width, and a scale of the scores that differs between members."""
    for name in ("Gemma2", "Gemma3"):
        source = randomised(gemma(name, 32, 2, 4, 2, 48, scalar=16))
        growth = grow(source, gemma(name, 48, 4, 6, 2, 48, scalar=64))
        assert growth.function_preserving, growth.reason
        assert growth.error < 1e-9


def test_a_soft_cap_that_differs_is_named():
    source = randomised(gemma("Gemma2", 32, 2, 4, 2, 48, final_logit_softcapping=5.0))
    growth = grow(source, gemma("Gemma2", 64, 2, 8, 4, 96, attn_logit_softcapping=5.0))
    assert not growth.function_preserving
    assert "'attn_logit_softcapping' is 50.0 in the source and 5.0 in the target" in growth.reason


def test_heads_with_slopes_stay():
    """ALiBi gives each head a slope by the number of heads."""
    source = randomised(falcon(32, 2, alibi=True))
    growth = grow(source, falcon(32, 3, mlp=200, alibi=True))
    assert growth.function_preserving, growth.reason
    with pytest.raises(GrowthError, match="the axis 'alibi_heads' changes from 4 to 8"):
        grow(source, falcon(64, 2, alibi=True))


def test_fused_groups_by_hand():
    """Of each key/value head come its queries, its key and its value, in Falcon's fused tensor."""
    source, target = falcon(32, 1, 2), falcon(48, 1, 2)
    small, large = (
        model.transformer.h[0].self_attention.query_key_value.weight for model in (source, target)
    )
    with torch.no_grad():
        small.copy_(torch.arange(8.0).repeat_interleave(8)[:, None].expand(64, 32))
        large.fill_(-1)
    grow(source, target, "leading_block")
    assert large[::8, 0].tolist() == [0, 1, -1, 2, 3, 4, 5, -1, 6, 7]


def test_float32_experts_are_measured_in_full_precision():
    """Whatever kernel runs them, which stays as it was."""
    source, target = (
        experts("Mixtral", *sizes, experts_implementation="grouped_mm").float()
        for sizes in ((32, 2, 4, 2, 48), (48, 3, 6, 2, 100))
    )
    growth = grow(randomised(source), target)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-6
    assert target.config._experts_implementation == "grouped_mm"


class TestGemma3(LayoutContract):
    def pair(self):
        return CASES["gemma3"].pair("other")


class TestFalcon(LayoutContract):
    def pair(self):
        return CASES["falcon"].pair("whole")


class TestMixtral(LayoutContract):
    def pair(self):
        return CASES["mixtral"].pair("other")


class TestGptOss(LayoutContract):
    def pair(self):
        return CASES["gpt_oss"].pair("other")
