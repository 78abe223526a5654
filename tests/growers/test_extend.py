"""Axes that width and depth leave alone: vocabulary, positions, key/value heads, experts."""

from __future__ import annotations

import pytest
import torch

from compt import ConfigError, Grower, GrowthError, grow
from compt.growth.run import build_grower
from compt.registry import GROWERS
from compt.testing.contracts import randomised, snapshot
from tests.layouts.language_models import (
    experts,
    falcon,
    gemma,
    gpt2,
    gpt_j,
    grouped,
    is_tied,
)


def llama(*sizes, **options):
    return grouped("Llama", *sizes, **options)


def moe(name, num, chosen, *, wider=False, **options):
    sizes = (48, 3, 6, 2, 100) if wider else (32, 2, 4, 2, 48)
    if name == "GptOss" and wider:
        sizes = (48, 4, 6, 2, 100)
    return experts(name, *sizes, num, chosen, **options)


SMALL, WIDE = (32, 2, 4, 2, 48), (48, 3, 6, 2, 100)
COPY, SPLIT = dict(experts="copy"), dict(kv_heads="split")
EXACT = {
    "tied vocabulary": (
        lambda: llama(*SMALL, tie_word_embeddings=True),
        lambda: llama(*WIDE, tie_word_embeddings=True, vocab_size=77),
        dict(vocab="mean"),
    ),
    "untied vocabulary": (
        lambda: llama(*SMALL),
        lambda: llama(*WIDE, vocab_size=77),
        dict(vocab="fresh"),
    ),
    "vocabulary with a bias": (
        lambda: gpt_j(32, 2),
        lambda: gpt_j(40, 3, vocab_size=77),
        dict(vocab="mean"),
    ),
    "vocabulary of Gemma": (
        lambda: gemma("Gemma2", *SMALL),
        lambda: gemma("Gemma2", *WIDE[:1], 4, *WIDE[2:], vocab_size=77),
        dict(vocab="mean"),
    ),
    "positions": (
        lambda: gpt2(32, 2, head_dim=8),
        lambda: gpt2(48, 3, head_dim=8, positions=96),
        dict(position="fresh"),
    ),
    "one key/value head of four": (
        lambda: llama(32, 2, 4, 1, 48),
        lambda: llama(48, 3, 8, 2, 100),
        SPLIT,
    ),
    "a key/value head for each query": (
        lambda: llama(32, 2, 4, 1, 48),
        lambda: llama(32, 2, 4, 4, 48),
        SPLIT,
    ),
    "fused key/value heads": (
        lambda: grouped("Phi3", 32, 2, 4, 1, 48),
        lambda: grouped("Phi3", 48, 3, 8, 2, 100),
        SPLIT,
    ),
    "key/value heads fused by group": (lambda: falcon(32, 2, 1), lambda: falcon(64, 2, 2), SPLIT),
    "normalised key/value heads": (
        lambda: grouped("Olmo2", *SMALL),
        lambda: grouped("Olmo2", 64, 2, 4, 4, 96),
        SPLIT,
    ),
    "experts of Mixtral": (
        lambda: moe("Mixtral", 4, 2),
        lambda: moe("Mixtral", 8, 4, wider=True),
        COPY,
    ),
    "experts of GPT-OSS": (
        lambda: moe("GptOss", 3, 1),
        lambda: moe("GptOss", 9, 3, wider=True),
        COPY,
    ),
    "experts whose weights sum to less": (
        lambda: moe("Qwen3Moe", 4, 2, norm_topk_prob=False),
        lambda: moe("Qwen3Moe", 8, 4, wider=True, norm_topk_prob=False),
        COPY,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_function_is_kept(name):
    """Of the tokens and positions that the source knows."""
    small, large, axes = EXACT[name]
    source, target = randomised(small()), large()
    growth = grow(source, target, dict(type="extend", axes=axes))
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert not growth.dropped
    assert set(growth.params.values()) <= {"copied", "expanded", "initialised", "shared"}


def test_old_tokens_keep_their_logits_and_new_ones_are_average():
    source = randomised(llama(*SMALL, tie_word_embeddings=True), scale=0.1)
    target = llama(*SMALL, tie_word_embeddings=True, vocab_size=77)
    growth = grow(source, target, dict(type="extend", axes=dict(vocab="mean")))
    assert growth.params["model.embed_tokens.weight"] == "expanded"
    assert is_tied(target)
    tokens = torch.arange(60).view(2, 30)
    with torch.no_grad():
        old, new = source.eval()(tokens).logits, target.eval()(tokens).logits
    torch.testing.assert_close(new[..., :61], old)
    mean = old.mean(-1, keepdim=True)
    assert ((new[..., 61:] - mean).abs() < 0.2 * old.std(-1, keepdim=True)).all()
    assert len({*new[0, 0, 61:].tolist()}) == 16, "new tokens differ"


def test_positions_are_stretched_from_the_first_to_the_last():
    source, target = randomised(gpt2(32, 1, positions=4)), gpt2(32, 1, positions=7)
    growth = grow(source, target, dict(type="extend", axes=dict(position="interpolate")))
    assert not growth.function_preserving
    assert growth.reason.startswith("'position' is interpolated from 4 to 7")
    small, large = source.transformer.wpe.weight, target.transformer.wpe.weight
    torch.testing.assert_close(large[::2], small)
    torch.testing.assert_close(large[1::2], (small[1:] + small[:-1]) / 2)


def test_positions_are_appended_as_they_were_initialised():
    source, target = randomised(gpt2(32, 1, positions=4)), gpt2(32, 1, positions=7)
    fresh = target.transformer.wpe.weight.detach().clone()
    grow(source, target, dict(type="extend", axes=dict(position="fresh")))
    assert torch.equal(target.transformer.wpe.weight[:4], source.transformer.wpe.weight)
    assert torch.equal(target.transformer.wpe.weight[4:], fresh[4:])


@pytest.mark.parametrize(("num", "chosen"), [(8, 2), (6, 3)])
def test_other_numbers_of_experts_are_told(num, chosen):
    """A token that chooses two of eight copies gets both copies of one expert."""
    grower = dict(type="extend", axes=COPY)
    growth = grow(randomised(moe("Mixtral", 4, 2)), moe("Mixtral", num, chosen), grower)
    assert not growth.function_preserving
    assert growth.error > 0.01
    assert growth.reason == (
        f"'experts' grows from 4 to {num} by copies, of which {chosen} are chosen, after 2: exact "
        "at whole multiples of both alike"
    )


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_copies_of_experts_part_ways_through_their_noise(noise):
    source, target = randomised(moe("Mixtral", 4, 2), scale=0.1), moe("Mixtral", 8, 4)
    growth = grow(source, target, dict(type="extend", axes=COPY, noise=noise))
    assert growth.error < 1e-9
    down = target.model.layers[0].mlp.experts.down_proj
    source_down = source.model.layers[0].mlp.experts.down_proj
    torch.testing.assert_close((down[:4] + down[4:]) / 2, source_down)
    tokens = torch.randint(61, (4, 24), generator=torch.Generator().manual_seed(0))
    target.train()(tokens, labels=tokens).loss.backward()
    gate = target.model.layers[0].mlp.experts.gate_up_proj.grad
    router = target.model.layers[0].mlp.gate.weight.grad
    for gradient in (gate, router):
        alike = torch.allclose(gradient[:4], gradient[4:], rtol=1e-6)
        assert alike is (noise == 0)


def test_another_grower_does_the_rest():
    grower = dict(
        type="extend",
        axes=dict(vocab="mean"),
        grower=dict(type="compose", width="clone", depth=dict(type="stack", blocks="zero")),
    )
    source, target = randomised(llama(*SMALL)), llama(64, 4, 8, 2, 96, vocab_size=70)
    growth = grow(source, target, grower)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    inexact = grow(source, llama(*WIDE, vocab_size=70), dict(grower, grower="leading_block"))
    assert inexact.reason == "this grower does not aim to preserve the function"


def test_nothing_to_extend_is_growth_alone():
    source, first, second = randomised(llama(*SMALL)), llama(*WIDE), llama(*WIDE)
    grow(source, first)
    grow(source, second, dict(type="extend", axes=dict(vocab="mean")))
    assert all(map(torch.equal, snapshot(first).values(), snapshot(second).values()))


class Whole(Grower):
    def check(self, source, target):
        """Take anything."""

    def grow(self, source, target, **options):
        raise NotImplementedError


REFUSED = {
    "an axis that is not there": (
        dict(vocabs="mean"),
        lambda: llama(*WIDE),
        r"no axis 'vocabs' to extend in .*Did you mean 'vocab'\?",
    ),
    "fewer tokens": (
        dict(vocab="mean"),
        lambda: llama(*WIDE, vocab_size=50),
        "'vocab' would shrink from 61 to 50",
    ),
    "a group that cannot be split": (
        SPLIT,
        lambda: llama(48, 3, 6, 6, 100),
        "'kv_heads' cannot be split from 2 to 6 with 2 of 'group' each",
    ),
    "an axis without groups": (
        dict(vocab="split"),
        lambda: llama(*WIDE, vocab_size=122),
        "'vocab' has no groups that could be split",
    ),
    "an axis left out": (
        dict(vocab="mean"),
        lambda: grouped("Llama", *WIDE, head_dim=16, vocab_size=70),
        "'head_dim' changes from 8 to 16",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_extended_is_named_before_any_write(case):
    axes, large, message = REFUSED[case]
    target = large()
    values = snapshot(target)
    with pytest.raises(GrowthError, match=message):
        grow(llama(*SMALL), target, dict(type="extend", axes=axes))
    assert all(torch.equal(values[name], tensor) for name, tensor in snapshot(target).items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(axes={}), "axes names none that grows"),
        (dict(axes=dict(vocab="means")), r"axes.vocab='means' is no rule. Did you mean 'mean'\?"),
        (dict(axes=dict(vocab="mean"), grower="whole"), "grows whole models"),
        (dict(axes=dict(vocab="mean"), grower="lesa"), "grows whole models"),
        (dict(axes=dict(vocab="mean"), grower="upcycle"), "grows whole models"),
        (dict(axes=dict(vocab="mean"), noise=-1), "noise"),
    ],
)
def test_options_that_cannot_be(options, message, monkeypatch):
    monkeypatch.setitem(GROWERS.module_dict, "whole", Whole)
    with pytest.raises(ConfigError, match=message):
        build_grower(dict(type="extend", **options))


def test_what_else_is_fixed_says_how_it_may_grow():
    """The name of this grower is where someone looks who needs it."""
    with pytest.raises(GrowthError, match=r"'vocab' changes from 61 to 77(.*\n)*.*extend"):
        grow(llama(*SMALL), llama(*WIDE, vocab_size=77))
