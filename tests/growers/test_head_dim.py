"""Heads of more channels, where nothing but the scale of scores depends on how many there are."""

from __future__ import annotations

import pytest
import torch

from compt import GrowthError, describe, grow
from compt.growth.optimizer_state import grow_state
from compt.testing.contracts import randomised
from tests.layouts.families import vit
from tests.layouts.language_models import causal_lm, gpt2, llama, mamba_2, neox

transformers = pytest.importorskip("transformers")

PAD = dict(type="extend", axes=dict(head_dim="pad"))


def bert(width, head_dim):
    sizes = dict(hidden_size=width, num_attention_heads=width // head_dim, intermediate_size=48)
    config = transformers.BertConfig(**sizes, num_hidden_layers=2, vocab_size=61)
    torch.manual_seed(width)
    return transformers.BertModel(config, add_pooling_layer=False).double()


def modern(width):
    sizes = dict(hidden_size=width, intermediate_size=48, num_hidden_layers=1, vocab_size=61)
    ids = dict.fromkeys(("pad", "bos", "eos", "cls", "sep"), 0)
    ids = {f"{name}_token_id": value for name, value in ids.items()}
    config = transformers.ModernBertConfig(**sizes, **ids, num_attention_heads=4)
    return transformers.ModernBertModel(config)


def gpt_j(width):
    return causal_lm("GPTJ", n_embd=width, n_layer=1, n_head=4, rotary_dim=4, n_positions=64)


def falcon(width):
    sizes = dict(hidden_size=width, num_hidden_layers=1, ffn_hidden_size=128)
    return causal_lm("Falcon", **sizes, num_attention_heads=4, alibi=True)


UNSCALED = dict(scale_attn_weights=False)
PADS = {
    "GPT-2": (lambda: gpt2(32, 2, head_dim=8), lambda: gpt2(64, 3, head_dim=16)),
    "GPT-2, by no whole multiple": (lambda: gpt2(32, head_dim=8), lambda: gpt2(48, head_dim=12)),
    "GPT-2 without a scale": (
        lambda: gpt2(32, head_dim=8, **UNSCALED),
        lambda: gpt2(64, head_dim=16, **UNSCALED),
    ),
    "GPT-2 that loses its scale": (
        lambda: gpt2(32, head_dim=8),
        lambda: gpt2(64, head_dim=16, **UNSCALED),
    ),
    "BERT": (lambda: bert(32, 8), lambda: bert(64, 16)),
    "ViT": (lambda: vit(32), lambda: vit(48, 3, num_heads=4)),
    "ViT with attention pooling": (
        lambda: vit(32, global_pool="map", class_token=False),
        lambda: vit(64, global_pool="map", class_token=False, num_heads=4),
    ),
}


@pytest.mark.parametrize("name", PADS)
def test_wider_heads_keep_the_function(name):
    small, large = PADS[name]
    growth = grow(randomised(small()), large(), PAD)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12


def test_new_channels_learn():
    """Queries by the fresh keys, and what reads the values by those."""
    source, target = randomised(gpt2(32, 1, head_dim=8), scale=0.1), gpt2(64, 1, head_dim=16)
    grow(source, target, PAD)
    tokens = torch.randint(61, (4, 24), generator=torch.Generator().manual_seed(0))
    target.train()(tokens, labels=tokens).loss.backward()
    attention = target.transformer.h[0].attn
    queries = attention.c_attn.weight.grad.view(64, 3, 4, 16)[:, 0, :, 8:]
    read = attention.c_proj.weight.grad.view(4, 16, 64)[:, 8:]
    for gradient in (queries, read):
        assert (gradient.abs() > 0).double().mean() > 0.9


def test_moments_fall_by_as_much_as_queries_grow():
    source, target = gpt2(32, 1, head_dim=8), gpt2(64, 1, head_dim=16)
    name = "exp_avg:transformer.h.0.attn.c_attn.weight"
    state = {name: torch.ones(32, 96, dtype=torch.float64)}
    moments = grow_state(source, target, PAD, state)[name].view(64, 3, 4, 16)
    torch.testing.assert_close(moments[:, 0, :, :8], moments[:, 2, :, :8] / 2**0.5)
    assert moments[:, 2, :, :8].min() > 0
    assert not moments[..., 8:].any()


ROTARY, SCALED = "rotary positions turn each channel", "attention scales its scores by how many"
HINTS = {
    "GPT-2": (
        lambda: gpt2(32, head_dim=8),
        lambda: gpt2(64, head_dim=16),
        r"grower=dict\(type='extend', axes=\{'head_dim': 'pad'\}\)",
    ),
    "Llama": (llama, lambda: llama(head_dim=32), ROTARY),
    "GPT-J": (lambda: gpt_j(32), lambda: gpt_j(64), ROTARY),
    "ModernBERT": (lambda: modern(32), lambda: modern(64), ROTARY),
    "Falcon with ALiBi": (lambda: falcon(32), lambda: falcon(64), SCALED),
    "ViT of normalised queries": (
        lambda: vit(32, qk_norm=True),
        lambda: vit(64, qk_norm=True, num_heads=4),
        SCALED,
    ),
}


@pytest.mark.parametrize("name", HINTS)
def test_why_heads_stay_is_told_of_each_family(name):
    small, large, hint = HINTS[name]
    with pytest.raises(GrowthError, match=rf"'head_dim' changes from(.*\n)*.*{hint}"):
        grow(small(), large())
    if name != "GPT-2":
        with pytest.raises(GrowthError, match="'head_dim' cannot be padded"):
            grow(small(), large(), PAD)


def test_a_state_space_model_has_no_scores():
    assert "head_dim" not in describe(mamba_2(32, 2, 8, 2)).units
    assert describe(neox()).units["head_dim"] == "rotary"
