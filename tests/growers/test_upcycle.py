"""Dense models become models with experts that compute the same, whatever the router chooses."""

from __future__ import annotations

import pytest
import torch

from compt import GrowthError, grow
from compt.testing.contracts import randomised
from tests.layouts.language_models import experts, grouped

SMALL, WIDE = (32, 2, 4, 2, 48), (48, 3, 6, 2, 100)
ALIKE = dict(rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=1e4))
PAIRS = {
    "llama, as wide": (
        lambda: grouped("Llama", *SMALL, **ALIKE),
        lambda: experts("Mixtral", *SMALL, 8, 2, **ALIKE),
    ),
    "mistral, wider and deeper": (
        lambda: grouped("Mistral", *SMALL, sliding_window=None, **ALIKE),
        lambda: experts("Mixtral", *WIDE, 4, 3, **ALIKE),
    ),
    "qwen3": (
        lambda: grouped("Qwen3", *SMALL),
        lambda: experts("Qwen3Moe", *WIDE, 8, 4),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_function_is_kept(name):
    source, target = (make() for make in PAIRS[name])
    growth = grow(randomised(source), target, "upcycle")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert not growth.dropped
    assert growth.params["model.layers.0.mlp.gate.weight"] == "initialised"
    assert growth.params["model.layers.0.mlp.experts.down_proj"] == "expanded"


def test_experts_are_the_mlp_and_the_router_is_fresh():
    source, target = (make() for make in PAIRS["llama, as wide"])
    router = target.model.layers[1].mlp.gate.weight.detach().clone()
    grow(randomised(source), target, "upcycle")
    dense, mlp = source.model.layers[1].mlp, target.model.layers[1].mlp
    fused = torch.cat([dense.gate_proj.weight, dense.up_proj.weight])
    for expert in range(8):
        assert torch.equal(mlp.experts.gate_up_proj[expert], fused)
        assert torch.equal(mlp.experts.down_proj[expert], dense.down_proj.weight)
    assert torch.equal(mlp.gate.weight, router)


def test_experts_learn_different_things():
    source, target = (make() for make in PAIRS["llama, as wide"])
    grow(randomised(source, scale=0.1), target, "upcycle")
    optimizer = torch.optim.AdamW(target.train().parameters(), lr=1e-3)
    for step in range(2):
        tokens = torch.randint(61, (4, 24), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        target(tokens, labels=tokens).loss.backward()
        optimizer.step()
    down = target.model.layers[0].mlp.experts.down_proj
    assert all(not torch.allclose(down[0], down[i], atol=1e-5) for i in range(1, 8))
    assert target.model.layers[0].mlp.gate.weight.grad.any()


def test_the_vocabulary_may_grow_too_and_another_grower_widens():
    source = randomised(grouped("Qwen3", *SMALL))
    target = experts("Qwen3Moe", 64, 2, 8, 4, 96, 4, 2, vocab_size=70)
    grower = dict(type="upcycle", grower="clone", axes=dict(vocab="mean"))
    growth = grow(source, target, grower)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9


def test_weights_that_do_not_sum_to_one_are_noticed():
    source = randomised(grouped("Qwen3", *SMALL))
    growth = grow(source, experts("Qwen3Moe", *SMALL, norm_topk_prob=False), "upcycle")
    assert not growth.function_preserving
    assert growth.error > 0.01


def test_options_that_differ_are_named_with_both_values():
    source, target = grouped("Llama", *SMALL), experts("Mixtral", *SMALL, 8, 2)
    growth = grow(randomised(source), target, "upcycle")
    assert not growth.function_preserving
    assert "'rms_norm_eps' is 1e-06 in the source and 1e-05 in the target" in growth.reason
    theta = "'rope_parameters.rope_theta' is 10000.0 in the source and 1000000.0 in the target"
    assert theta in growth.reason
    assert "to be set alike" in growth.reason
    assert "Mixtral" not in growth.reason, "classes differ where a dense model gets experts"


REFUSED = {
    "narrower experts": (
        lambda: grouped("Qwen3", *SMALL),
        lambda: experts("Qwen3Moe", 48, 3, 6, 2, 32),
        "'expert_mlp' would shrink from 48 to 32",
    ),
    "experts already": (
        lambda: experts("Mixtral", *SMALL),
        lambda: experts("Mixtral", *WIDE),
        r"no 'model\.layers\.0\.mlp\.down_proj\.weight' that could become an expert",
    ),
    "no experts": (
        lambda: grouped("Llama", *SMALL),
        lambda: grouped("Llama", *WIDE),
        "has no experts of which its layout says",
    ),
    "another design": (
        lambda: grouped("Starcoder2", *SMALL),
        lambda: experts("Mixtral", *WIDE),
        r"that could become an expert \(.*Starcoder2ForCausalLM -> .*MixtralForCausalLM\)\. "
        r"Options differ: .*'hidden_act' is 'gelu_pytorch_tanh' in the source and 'silu' in",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_become_experts_is_named(case):
    small, large, message = REFUSED[case]
    with pytest.raises(GrowthError, match=message):
        grow(small(), large(), "upcycle")
