"""The function is kept at whole multiples, and in depth, by maps as they start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ligo_models import clip, llama, mae, noisy, vit
from torch import nn

import compt
from compt.testing.toy import ToyNet

Make = Callable[[], nn.Module]
GROUPED = (32, 2, 4, 2, 48)
KEPT: dict[str, tuple[Make, Make]] = {
    "layer norm": (lambda: ToyNet(16, 2), lambda: ToyNet(48, 2)),
    "rms norm": (lambda: ToyNet(16, 2, rms=True), lambda: ToyNet(32, 2, rms=True)),
    "layer norm, deeper": (lambda: ToyNet(16, 2), lambda: ToyNet(32, 5)),
    "rms norm, deeper": (lambda: ToyNet(16, 3, rms=True), lambda: ToyNet(48, 4, rms=True)),
    "tied llama": (lambda: llama(*GROUPED), lambda: llama(64, 2, 8, 4, 96)),
    "tied llama, deeper, more queries a group, units at no multiple": (
        lambda: llama(*GROUPED),
        lambda: llama(96, 5, 6, 2, 80),
    ),
    "untied llama from tied, heads at no multiple": (
        lambda: llama(*GROUPED),
        lambda: llama(96, 3, 6, 3, 96, tie_word_embeddings=False),
    ),
    "clip, more features at no multiple": (
        lambda: clip(32, 2, features=24),
        lambda: clip(64, 3, features=40),
    ),
    "masked autoencoder": (lambda: mae(32, 2, 16, 1), lambda: mae(64, 3, 48, 2)),
    "vit with layer scale and q/k norms": (lambda: vit(32, 2), lambda: vit(96, 5)),
    "vit with a norm before the blocks": (
        lambda: vit(32, 2, pre_norm=True),
        lambda: vit(64, 3, pre_norm=True),
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_function_is_kept(case: str) -> None:
    """To 1e-9 in float64, with random gains, biases and tokens."""
    small, large = (make().double() for make in KEPT[case])
    growth = compt.grow(noisy(small), large, dict(type="ligo", steps=0), seed=2)
    assert growth.function_preserving, growth.reason
    assert growth.error is not None and growth.error < 1e-9


UNTRUE: dict[str, tuple[Make, Make, str]] = {
    "another width": (lambda: ToyNet(16, 2), lambda: ToyNet(40, 2), "normalises over 'embed'"),
    "another width of one tower": (
        lambda: clip(32, 1, features=16),
        lambda: clip(48, 1, features=16),
        "'visual.ln_pre.weight' normalises over 'visual.patch_embed'",
    ),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_where_it_is_not_kept_the_report_says_so(case: str) -> None:
    """With the layer and the axis."""
    small, large, reason = UNTRUE[case]
    growth = compt.grow(noisy(small().double()), large().double(), dict(type="ligo", steps=0))
    assert not growth.function_preserving and reason in growth.reason
    assert growth.error is not None and growth.error > 1e-4


def test_an_unmarked_tied_head_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits grow where the layout names no norm that takes the shares, and the report says so."""
    small, large = llama(*GROUPED).double(), llama(64, 2, 8, 4, 96).double()
    name = "transformers.models.llama.modeling_llama.LlamaForCausalLM"
    layout = compt.LAYOUTS.get(name)
    patterns = {**layout.patterns, "model.norm.*": "rms_norm_gain: embed"}
    monkeypatch.setattr(layout, "patterns", patterns)
    growth = compt.grow(noisy(small), large, dict(type="ligo", steps=0))
    assert not growth.function_preserving
    assert growth.reason == "'lm_head.weight' is tied, and nothing makes up for it along 'embed'"
    assert growth.error is not None and growth.error > 0.5


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_copies_part_only_where_shares_are_uneven(spread: float) -> None:
    """Two steps after growth, twins of the MLP differ, or never will."""
    torch.manual_seed(0)
    target = ToyNet(32, 1, dropout=0.0)
    compt.grow(noisy(ToyNet(16, 1)), target, dict(type="ligo", steps=0, spread=spread))
    optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        target(torch.randn(16, 8)).logsumexp(1).square().mean().backward()
        optimizer.step()
    rows = target.blocks[0].fc1.weight
    assert torch.allclose(rows[:32], rows[32:], atol=1e-6) == (spread == 0)
