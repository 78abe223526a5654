"""Layouts of decoder-only language models, tied and untied, which keep their logits."""

from __future__ import annotations

import pytest
import torch

from compt import GrowthError, describe, grow
from compt.growth.axes import find_layout
from compt.testing import LayoutContract
from compt.testing.contracts import randomised, snapshot
from tests.layouts.language_models import BIASES, PAIRS, gpt2, is_tied, llama, neox, pair

TIED = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


class TestLlama(LayoutContract):
    def pair(self):
        return pair("llama with biases")


class TestMistral(LayoutContract):
    def pair(self):
        return pair("mistral")


class TestQwen2(LayoutContract):
    def pair(self):
        return pair("qwen2", True)


class TestQwen3(LayoutContract):
    def pair(self):
        return pair("qwen3", True)


class TestGpt2(LayoutContract):
    def pair(self):
        return pair("gpt2", True)


class TestGptNeox(LayoutContract):
    def pair(self):
        return pair("gpt_neox")


@TIED
@pytest.mark.parametrize("name", PAIRS)
def test_lossless_keeps_the_logits(name, tied):
    """Wider (not at multiples), deeper, more heads, wider MLP, random gains and biases."""
    source, target = pair(name, tied)
    growth = grow(randomised(source), target)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert is_tied(target) is tied
    tokens = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        source_logits, target_logits = source.eval()(tokens).logits, target.eval()(tokens).logits
    # RMS norms of transformers compute in float32
    rounding = 1e-9 if name.startswith("gpt") else 1e-5
    assert (source_logits - target_logits).abs().max() < rounding * source_logits.abs().max()


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ((48, 2, 2, 1), (48, 2, 6, 1)),  # more queries at one key/value head
        ((48, 2, 4, 2), (48, 2, 12, 2)),  # more queries in each group
        ((48, 2, 4, 2), (48, 2, 8, 4)),  # more groups
        ((48, 2, 2, 2), (96, 3, 12, 4)),  # both, at a whole multiple
        ((48, 3, 4, 4), (112, 7, 7, 7)),  # no groups
    ],
)
def test_lossless_is_exact_for_grouped_queries(small, large):
    source, target = randomised(llama(*small, name="Qwen3")), llama(*large, name="Qwen3")
    growth = grow(source, target)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert describe(target).sizes["heads"] == large[2]
    assert describe(target).sizes["group"] == large[2] // large[3]


@TIED
@pytest.mark.parametrize("name", PAIRS)
def test_everything_learns_after_lossless_growth(name, tied):
    source, target = pair(name, tied)
    grow(randomised(source, scale=0.05), target)
    dead = {n for n, _ in target.named_parameters()}
    optimizer = torch.optim.AdamW(target.eval().parameters(), lr=1e-3)
    for step in range(2):
        tokens = torch.randint(61, (4, 24), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        target(tokens, labels=tokens).loss.backward()
        dead -= {n for n, p in target.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert not dead


@TIED
@pytest.mark.parametrize("name", PAIRS)
def test_leading_block_grows_corners(name, tied):
    source, target = pair(name, tied)
    growth = grow(randomised(source), target, "leading_block")
    assert not growth.function_preserving
    assert not growth.dropped
    assert is_tied(target) is tied
    assert growth.counts["shared"] == tied
    assert torch.equal(
        target.get_input_embeddings().weight[:, : source.config.hidden_size],
        source.get_input_embeddings().weight,
    )


def test_grouped_queries_by_hand():
    """Heads a b | c d of two groups become a b new | c d new in groups of three."""
    source, target = llama(8, 1, 4, 2, head_dim=2), llama(12, 1, 6, 2, head_dim=2)
    q = source.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        q.copy_(torch.arange(4.0).repeat_interleave(2)[:, None].expand(8, 8))
        target.model.layers[0].self_attn.q_proj.weight.fill_(-1)
    grow(source, target, "leading_block")
    assert target.model.layers[0].self_attn.q_proj.weight[::2, 0].tolist() == [0, 1, -1, 2, 3, -1]


LLAMA = "model.layers.0.self_attn"
REFUSED = {
    "heads of another size": (
        llama,
        dict(),
        dict(head_dim=32),
        rf"'{LLAMA}\.q_proj.*'head_dim'.*16 to 32(.*\n)*.*rotary",
    ),
    "another vocabulary": (
        llama,
        dict(),
        dict(vocab=77),
        r"'model\.embed_tokens\.weight': the axis 'vocab'.*61 to 77",
    ),
    "more positions": (
        gpt2,
        dict(),
        dict(positions=72),
        r"'transformer\.wpe\.weight': the axis 'position'.*64 to 72",
    ),
    "a narrower MLP": (
        neox,
        dict(),
        dict(mlp=32),
        r"dense_h_to_4h\.weight': the axis 'mlp' would shrink from 64 to 32",
    ),
    "fewer groups": (
        llama,
        dict(),
        dict(heads=4, kv=1),
        rf"'{LLAMA}\.q_proj.*'kv_heads' would shrink from 2 to 1",
    ),
    "smaller groups": (
        llama,
        dict(),
        dict(heads=4, kv=4),
        rf"'{LLAMA}\.q_proj.*'group' would shrink from 2 to 1",
    ),
    "biases that the source lacks": (
        llama,
        dict(),
        BIASES,
        rf"could grow into '{LLAMA}\.q_proj\.bias'",
    ),
    "tied from untied": (
        *(gpt2, dict(tie_word_embeddings=False), dict(tie_word_embeddings=True)),
        r"'lm_head\.weight' is tied to 'transformer\.wte\.weight' in the target, "
        r"but not in the source",
    ),
}


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
@pytest.mark.parametrize("width", [48, 80])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_grow_is_named_before_any_write(case, width, grower):
    make, small, large, message = REFUSED[case]
    source, target = make(48, 2, **small), make(width, 3, **large)
    values = snapshot(target)
    with pytest.raises(GrowthError, match=message):
        grow(source, target, grower)
    assert all(torch.equal(values[name], tensor) for name, tensor in snapshot(target).items())


def test_windows_that_differ_are_noticed():
    """Weights cannot carry a window, of all layers or of some, which depth can move."""
    source = randomised(llama(name="Mistral", sliding_window=4))
    growth = grow(source, llama(80, name="Mistral", sliding_window=8, heads=8))
    assert not growth.function_preserving
    mixed = dict(name="Qwen3", use_sliding_window=True, sliding_window=40)
    source = randomised(llama(48, 2, **mixed, max_window_layers=1))
    for full, preserving in ((1, True), (3, False)):  # the source's second layer becomes the third
        growth = grow(source, llama(80, 4, **mixed, max_window_layers=full))
        assert growth.function_preserving is preserving


@pytest.mark.parametrize("name", PAIRS)
def test_the_probe_runs_the_model_itself(name):
    """In float64 too, where the probe's norms are more precise than the model's."""
    model = randomised(pair(name)[0]).eval()
    with torch.no_grad():
        logits = find_layout(model).probe(model, torch.Generator().manual_seed(3))["logits"]
        tokens = torch.randint(61, (2, 24), generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(logits, model(tokens).logits, rtol=1e-5, atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_float32_and_meta():
    source, target = (model.float() for model in pair("qwen3", True))
    assert grow(randomised(source), target).function_preserving
    with torch.device("meta"):
        arch = describe(llama(tie_word_embeddings=True))
    assert arch.params["lm_head.weight"].tied_to == "model.embed_tokens.weight"
    assert arch.params["model.norm.weight"].read_by == "lm_head.weight"
