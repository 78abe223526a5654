"""Learning rates that follow from widths, worked out by hand for models of several libraries."""

from __future__ import annotations

import pytest
import torch

from compt import describe
from compt.growth.width_rates import WidthRates, width_rates
from compt.interfaces import Architecture, ParamAxes
from compt.testing.toy import TiedNet, ToyNet

ROLES = {"embed": "stream", "mlp": "hidden", "heads": "hidden", "wide": "hidden", "vocab": "fixed"}
BLOCK = "blocks.{block}"


def rates(member, base) -> WidthRates:
    with torch.device("meta"):
        return width_rates(describe(member()), describe(base()), "base")


def read(name, *groups, template=None, reads=(1,), writes=(0,), **options) -> ParamAxes:
    """A parameter that reads the last of its two dimensions."""
    return ParamAxes(name, "weight", groups, reads, writes, template or name, **options)


def arch(*params, **sizes) -> Architecture:
    return Architecture("Net", sizes, ROLES, {}, {param.name: param for param in params})


def test_of_the_toy_what_reads_the_stream_or_the_units_has_another_rate():
    own = rates(lambda: ToyNet(24, 3), lambda: ToyNet(8, 1))
    assert own == WidthRates(
        base="base",
        factors={
            "head.weight": 1 / 3,
            f"{BLOCK}.fc1.weight": 1 / 3,
            f"{BLOCK}.fc2.weight": 1 / 3,
        },
        num_by_factor={1 / 3: 7},
        num_others=17,
    )


def test_a_larger_base_gives_smaller_members_higher_rates():
    own = rates(lambda: ToyNet(8, 1), lambda: ToyNet(16, 2))
    assert {*own.factors.values()} == {2.0}
    assert (own.num_by_factor, own.num_others) == ({2.0: 3}, 9)


def test_of_equal_widths_nothing_differs_whatever_the_depth():
    own = rates(lambda: ToyNet(16, 3), lambda: ToyNet(16, 1))
    assert own == WidthRates("base", num_others=24)


@pytest.mark.parametrize("width", [8, 32])
def test_a_table_that_is_the_head_too_keeps_its_rate(width):
    """Whether the base is smaller or larger, so that a member's rate follows its size alone."""
    own = rates(lambda: TiedNet(width, 1), lambda: TiedNet(16, 1))
    assert own.factors == {f"{BLOCK}.fc{i}.weight": 16 / width for i in (1, 2)}


def test_of_a_llama_each_matrix_follows_its_own_width():
    """The stream doubles, heads are four times as many, and units two and a half times."""
    from tests.layouts.language_models import llama

    layer = "model.layers.{block}"
    of_stream = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    of_stream += ["mlp.gate_proj", "mlp.up_proj"]
    expected = {
        **{f"{layer}.{name}.weight": 0.5 for name in of_stream},
        f"{layer}.self_attn.o_proj.weight": 0.25,
        f"{layer}.mlp.down_proj.weight": 0.4,
    }
    sizes = (64, 2, 8, 2, 160), (32, 1, 2, 2, 64)
    own = rates(*(lambda size=size: llama(*size) for size in sizes))
    assert own.factors == {**expected, "lm_head.weight": 0.5}
    assert own.num_by_factor == {0.5: 11, 0.4: 2, 0.25: 2}
    assert list(own.num_by_factor) == sorted(own.num_by_factor, reverse=True)
    tied = [lambda size=size: llama(*size, tie_word_embeddings=True) for size in sizes]
    assert rates(*tied).factors == expected


def test_of_clip_each_tower_follows_its_own_width():
    """Images double and texts triple; the features that they share are read by neither."""
    from tests.layouts.test_open_clip import clip

    own = rates(lambda: clip(64, 1, 144, 1, embed_dim=64), lambda: clip(32, 2, 48, 2))
    names = ["attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"]
    block = "transformer.resblocks.{block}"
    assert own.factors == {
        "visual.proj": 0.5,
        "text_projection": 1 / 3,
        **{f"visual.{block}.{name}": 0.5 for name in names},
        **{f"{block}.{name}": 1 / 3 for name in names},
    }
    assert own.num_by_factor == {0.5: 5, 1 / 3: 5}


@pytest.mark.parametrize("heads", [2, 4])
def test_of_a_vit_patches_keep_their_rate_and_units_of_heads_count(heads):
    """Twice as many heads, or heads of twice as many units, which cannot be grown."""
    from tests.layouts.test_open_clip import timm_vit

    own = rates(
        lambda: timm_vit(64, 2, num_heads=heads, patch_size=8, num_classes=10),
        lambda: timm_vit(32, 1, num_classes=10),
    )
    names = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    expected = {f"{BLOCK}.{name}.weight": 0.5 for name in names}
    assert own.factors == {"head.weight": 0.5, **expected}
    assert own.num_by_factor == {0.5: 9}


def test_of_mmpretrains_autoencoder_encoder_and_decoder_follow_their_own_widths():
    from tests.paradigms.mae_models import doubled, mae

    own = rates(*(lambda width=width: doubled(mae(width, 1, 16, 1)) for width in (64, 32)))
    assert own.factors["neck.decoder_embed.weight"] == 0.5
    assert own.factors["backbone.layers.{block}.attn.qkv.weight"] == 0.5
    assert not any(name.startswith("neck.decoder_blocks") for name in own.factors)
    assert not any("patch_embed" in name for name in own.factors)


def test_a_width_that_the_base_lacks_is_unclear():
    own = width_rates(
        arch(read("new", ("embed",), ("wide",)), embed=8, wide=32),
        arch(read("old", ("embed",), ("mlp",)), embed=4, mlp=8),
        "base",
    )
    assert own == WidthRates("base", num_others=1, num_unclear=1)


def test_inputs_of_the_data_are_no_widths():
    """A larger vocabulary is looked up, and larger patches are there from the first layer on."""
    sizes = dict(embed=8, vocab=50), dict(embed=4, vocab=10)
    table = read("table", ("vocab",), ("embed",), reads=(0,), writes=(1,))
    assert not width_rates(*(arch(table, **own) for own in sizes), "base").factors


def test_what_is_read_concatenated_adds_up():
    """16 + 2 * 8 units in the place of 4 + 2 * 2."""
    param = read("out", ("embed",), ("mlp | 2 heads",))
    sizes = dict(embed=8, mlp=16, heads=8), dict(embed=4, mlp=4, heads=2)
    own = width_rates(*(arch(param, **size) for size in sizes), "base")
    assert own.factors == {"out": 8 / 32}


def test_a_constant_of_the_model_scales_steps_too():
    """A table that is multiplied by sqrt(width), and a head whose logits are divided by it."""
    sizes = dict(embed=64, vocab=9), dict(embed=16, vocab=9)
    archs = []
    for size in sizes:
        width = size["embed"]
        table = read(
            "table", ("vocab",), ("embed",), reads=(0,), writes=(1,), multiplier=width**0.5
        )
        head = read("head", ("vocab",), ("embed",), multiplier=1 / width)
        archs.append(arch(table, head, **size))
    assert width_rates(*archs, "base").factors == {"table": 0.5}


def test_blocks_that_differ_are_named_one_by_one():
    """A first block of patterns of its own, which the other blocks' template would fit too."""
    params = [
        read("blocks.0.fc", ("embed",), ("8",)),
        read("blocks.1.fc", ("embed",), ("embed",), template=f"{BLOCK}.fc"),
        read("blocks.1.up", ("embed",), ("embed",), template=f"{BLOCK}.up"),
        read("blocks.2.up", ("embed",), ("mlp",), template=f"{BLOCK}.up"),
    ]
    sizes = dict(embed=8, mlp=80), dict(embed=4, mlp=8)
    own = width_rates(*(arch(*params, **size) for size in sizes), "base")
    assert own.factors == {
        "blocks.0.fc": 1.0,
        "blocks.1.up": 0.5,
        "blocks.2.up": 0.1,
        f"{BLOCK}.fc": 0.5,
    }
    assert list(own.factors)[-1] == f"{BLOCK}.fc"
