"""clone, stack, compose and the choices of lossless: contracts, exactness on real models, cases
worked by hand.
"""

from __future__ import annotations

import pytest
import torch

from compt import GrowthError, grow
from compt.errors import ConfigError
from compt.growers.clone import Clone
from compt.growers.stack import Stack
from compt.registry import GROWERS
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet

COMPOSED = dict(
    type="compose", width=dict(type="clone"), depth=dict(type="stack", order="solar", blocks="zero")
)


class TestClone(GrowerContract):
    grower = "clone"


class TestCloneWithCopiedBlocks(GrowerContract):
    grower = dict(type="clone", blocks="copy", noise=0.5)


class DepthOnly(GrowerContract):
    """Pairs of one width."""

    def pairs(self):
        return [
            (randomised(ToyNet(16, small, rms=rms).double()), ToyNet(16, large, rms=rms).double())
            for small, large in ((2, 4), (2, 3), (3, 3))
            for rms in (False, True)
        ]

    def chain(self):
        members = [
            dict(name=name, model=dict(width=16, depth=depth), iters=3)
            for name, depth in zip("abc", (1, 2, 4))
        ]
        return {**super().chain(), "chain": members}


class TestStack(DepthOnly):
    grower = "stack"


class TestSolar(DepthOnly):
    grower = dict(type="stack", order="solar", blocks="zero")


class TestCompose(GrowerContract):
    grower = dict(type="compose", width="clone", depth=dict(type="stack", blocks="zero"))


class TestLosslessOfCopies(GrowerContract):
    grower = dict(type="lossless", fill="copy", blocks="fresh")


EXACT = [
    "clone",
    COMPOSED,
    dict(type="lossless", fill="copy"),
    dict(type="lossless", blocks="fresh"),
]
EXACT.append(dict(type="compose", width="lossless", depth=dict(type="stack", blocks="zero")))


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


@pytest.mark.parametrize("group", [(4, 2, 8, 2), (4, 2, 8, 4), (4, 4, 8, 8), (4, 1, 12, 3)])
def test_clone_is_exact_for_grouped_queries(group):
    models = pytest.importorskip("tests.layouts.language_models")
    heads, kv, more, more_kv = group
    source, target = models.llama(48, 1, heads, kv), models.llama(96, 1, more, more_kv)
    growth = grow(randomised(source), target, "clone")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-11


def test_clone_is_exact_for_clip_with_ln_pre():
    pytest.importorskip("open_clip")
    from tests.layouts.test_open_clip import clip

    source, target = clip(32, 1, 32, 1), clip(64, 2, 96, 2, embed_dim=64)
    growth = grow(randomised(source.double()), target.double(), "clone")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-11


def test_clone_elsewhere_says_that_it_is_close():
    growth = grow(randomised(ToyNet(16, 1).double()), ToyNet(24, 1).double(), "clone")
    assert not growth.function_preserving
    assert "'embed' grows from 16 to 24: tiling is exact at whole multiples only" in growth.reason
    assert 1e-6 < growth.error < 0.5


def test_clone_by_hand():
    """Two units to four: writers tiled, readers halved; the noise of a unit's two copies sums to
    0.
    """
    source, target = ToyNet(2, 1).double(), ToyNet(4, 1).double()
    with torch.no_grad():
        source.embed.bias.copy_(torch.tensor([1.0, 3.0]))
        source.head.weight.fill_(2.0)
        source.norm.weight.copy_(torch.tensor([5.0, 7.0]))
    grow(source, target, Clone(noise=1.0))
    assert target.embed.bias.tolist() == [1.0, 3.0, 1.0, 3.0]
    assert target.norm.weight.tolist() == [5.0, 7.0, 5.0, 7.0]
    head = target.head.weight
    assert torch.allclose(head[:, :2] + head[:, 2:], torch.full((10, 2), 2.0, dtype=torch.float64))
    noise = head[:, :2].detach() - 1.0
    assert noise.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.4), (
        "of the rms of the split weights"
    )


def test_clone_at_odd_sizes_shares_out_by_the_number_of_copies():
    """Three units to five: the first two have two copies, the third one."""
    source, target = ToyNet(3, 1).double(), ToyNet(5, 1).double()
    with torch.no_grad():
        source.head.weight.fill_(6.0)
    grow(source, target, Clone(noise=0.5))
    head = target.head.weight
    assert torch.allclose(head[:, 2], torch.full((10,), 6.0, dtype=torch.float64))
    assert torch.allclose(head[:, 0] + head[:, 3], torch.full((10,), 6.0, dtype=torch.float64))


def test_copies_part_ways_only_with_noise():
    def after_steps(grower) -> float:
        target = ToyNet(16, 1, dropout=0.0)
        grow(randomised(ToyNet(8, 1)), target, grower)
        optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
        for step in range(5):
            x = torch.randn(64, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(target(x), torch.arange(64) % 10).backward()
            optimizer.step()
        return (target.embed.weight[:8] - target.embed.weight[8:]).abs().max().item()

    with pytest.warns(UserWarning, match="stay equal for ever"):
        silent = Clone(noise=0)
    assert after_steps(silent) < 1e-6
    assert after_steps(Clone()) > 1e-3


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("stack", [0, 1, 2, 0, 1, 2]),
        ("interleave", [0, 0, 1, 1, 2, 2]),
        ("solar", [0, 1, 2, 0, 1, 2]),
    ],
)
def test_the_orders_of_blocks_at_twice_the_depth(order, expected):
    assert [Stack(order=order).source_block_index(i, 3, 6) for i in range(6)] == expected


def test_solar_doubles_the_middle():
    """32 blocks to 48, as SOLAR: the first 24 and the last 24."""
    picked = [Stack(order="solar").source_block_index(i, 32, 48) for i in range(48)]
    assert picked == [*range(24), *range(8, 32)]


@pytest.mark.parametrize("order", ["stack", "interleave", "solar"])
def test_every_order_is_onto_and_in_range(order):
    for small in range(1, 13):
        for large in range(small, (2 * small if order == "solar" else 48) + 1):
            picked = [Stack(order=order).source_block_index(i, small, large) for i in range(large)]
            assert sorted(set(picked)) == list(range(small))


@pytest.mark.parametrize("blocks", ["copy", "zero"])
def test_stack_fills_blocks_by_its_order(blocks):
    source, target = randomised(ToyNet(8, 2)), ToyNet(8, 4)
    growth = grow(source, target, dict(type="stack", blocks=blocks))
    assert growth.function_preserving is (blocks == "zero")
    for i in range(4):
        assert torch.equal(target.blocks[i].fc1.weight, source.blocks[i % 2].fc1.weight)
        if blocks == "copy" or i < 2:
            assert torch.equal(target.blocks[i].fc2.weight, source.blocks[i % 2].fc2.weight)
        else:
            assert not target.blocks[i].fc2.weight.any()


def test_stack_refuses_what_it_cannot_do():
    with pytest.raises(
        GrowthError, match="grows depth only, and the axis 'embed' changes from 8 to 16"
    ):
        grow(ToyNet(8, 1), ToyNet(16, 2), "stack")
    for grower in (
        dict(type="stack", order="solar"),
        dict(type="compose", width="clone", depth=dict(type="stack", order="solar")),
    ):
        with pytest.raises(
            GrowthError, match="'blocks' grows from 1 to 3 blocks, and 'solar' doubles at most"
        ):
            grow(ToyNet(8, 1), ToyNet(8, 3), grower)


def test_compose_takes_width_from_one_and_depth_from_the_other():
    source, target = randomised(ToyNet(8, 2)), ToyNet(16, 4)
    grow(source, target, dict(type="compose", width="leading_block", depth="stack"))
    for i in range(4):
        assert torch.equal(target.blocks[i].fc1.weight[:16, :8], source.blocks[i % 2].fc1.weight)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (dict(type="clone", blocks="none"), "blocks='none' is not known"),
        (dict(type="clone", noise=-1), "noise=-1 is negative"),
        (dict(type="stack", order="up"), "order='up' is not known"),
        (dict(type="stack", blocks="up"), "blocks='up' is not known"),
        (dict(type="lossless", fill="up"), "fill='up' is not known"),
        (dict(type="lossless", blocks="zero"), "blocks='zero' is not known"),
        (
            dict(type="compose", width="scratch", depth="stack"),
            "width='scratch' grows whole models",
        ),
        (dict(type="compose", width="clone"), "needs the argument 'depth'"),
    ],
)
def test_bad_choices(config, what):
    with pytest.raises(ConfigError, match=what):
        GROWERS.build(config)


def test_lossless_fills_as_told():
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
