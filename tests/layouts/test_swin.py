"""Layouts of timm's and mmpretrain's Swin, exact at whole multiples and honest elsewhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from compt import GrowthError, describe, grow
from compt.growth.run import build_grower
from compt.testing import LayoutContract
from compt.testing.contracts import randomised

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from timm.models.swin_transformer import SwinTransformer


def swin(width, depths=(2, 1), head=8, **options):
    """Make a Swin on 8 x 8 patches and windows of 4.

    The first stage shifts its windows, the second has only one.
    """
    heads = [width * 2**i // head for i in range(len(depths))]
    options = dict(img_size=16, patch_size=2, window_size=4, num_classes=0) | options
    return SwinTransformer(embed_dim=width, depths=depths, num_heads=heads, **options).double()


def mmpretrain_swin(width, depths=(2, 1), *, masked=False, **options):
    swins = pytest.importorskip("mmpretrain.models")

    class Swin(swins.SimMIMSwinTransformer if masked else swins.SwinTransformer):
        def train(self, mode=True):  # mmpretrain's returns nothing
            super().train(mode)
            return self

    arch = dict(
        embed_dims=width,
        depths=list(depths),
        num_heads=[width // 8 * 2**i for i in range(len(depths))],
    )
    if masked:  # its patches are of 4 pixels and its windows of 7 tokens
        options = dict(img_size=56) | options
    else:
        options = dict(img_size=16, patch_size=2, window_size=4) | options
    return Swin(arch=arch, out_indices=(len(depths) - 1,), **options).double()


class TestTimmSwin(LayoutContract):
    def pair(self):
        return swin(16, num_classes=5), swin(48, (2, 3), num_classes=5)


class TestMmpretrainSwin(LayoutContract):
    def pair(self):
        return mmpretrain_swin(16, use_abs_pos_embed=True), mmpretrain_swin(
            32, (2, 3), use_abs_pos_embed=True
        )


class TestSimMimSwin(LayoutContract):
    def pair(self):
        return mmpretrain_swin(16, masked=True), mmpretrain_swin(32, (2, 3), masked=True)


def test_every_stage_has_a_stream_of_its_own():
    arch = describe(swin(16, (1, 1, 1), img_size=32, num_classes=3))
    streams = {"patch_embed": 16, "embed_0": 16, "embed_1": 32, "embed": 64}
    assert {
        axis: arch.sizes[axis] for axis, role in arch.roles.items() if role == "stream"
    } == streams
    assert [arch.sizes[f"heads_{i}"] for i in range(3)] == [2, 4, 8]
    assert arch.sizes["head_dim"] == 8
    assert arch.depths == {f"layers.{i}.blocks": 1 for i in range(3)}
    reduction = arch.params["layers.2.downsample.reduction.weight"]
    assert reduction.groups == (("embed",), ("4", "embed_1"))
    assert (reduction.reads, reduction.writes) == ((1,), (0,))
    table = arch.params["layers.0.blocks.0.attn.relative_position_bias_table"]
    assert arch.shape(table) == (7, 7, 2)


def test_both_libraries_are_described_alike():
    timm_arch, arch = describe(swin(16)), describe(mmpretrain_swin(16))
    assert timm_arch.sizes == arch.sizes
    assert timm_arch.roles == arch.roles
    index = arch.params["stages.0.blocks.0.attn.w_msa.relative_position_index"]
    assert (index.kind, index.buffer) == ("constant", True)
    reduction = arch.params["stages.0.downsample.reduction.weight"]
    assert reduction.groups == (("embed",), ("embed_0", "4"))


# Growth. T -> S deepens the third stage from 6 to 18 blocks; S -> B widens by 4/3, B -> L by 3/2


def four_stages(width, third):
    return swin(width, (2, 2, third, 2), img_size=64, num_classes=7)


def outputs(module, size=64):
    image = torch.randn(
        3, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return module.eval()(image)


@pytest.mark.parametrize(
    ("small", "large"), [((24, 6), (24, 18)), ((24, 6), (48, 18)), ((8, 2), (24, 2))]
)
def test_depth_and_whole_multiples_are_exact(small, large):
    source, target = randomised(four_stages(*small)), four_stages(*large)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert torch.allclose(outputs(source), outputs(target), atol=1e-9)


@pytest.mark.parametrize(("small", "large"), [(24, 32), (32, 48)])
def test_other_widths_say_that_they_are_not(small, large):
    growth = grow(randomised(four_stages(small, 2)), four_stages(large, 2), "lossless")
    assert not growth.function_preserving
    assert "'patch_embed.norm.weight' writes the residual stream through a norm" in growth.reason
    assert "'layers.1.downsample.norm.weight' normalises several tokens:" in growth.reason
    assert 0 < growth.error < 2e-2


@pytest.mark.parametrize("make", [swin, mmpretrain_swin])
def test_a_block_grows_from_one_that_shifts_as_it_does(make):
    """2 -> 4 blocks would put one of shifted windows where windows are not shifted."""
    source, target = randomised(make(16, (2, 1))), make(16, (4, 1))
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9


@pytest.mark.parametrize(
    ("small", "large"), [((24, 6), (24, 18)), ((24, 6), (32, 6)), ((32, 6), (48, 6))]
)
def test_leading_block_fills_the_corner_of_every_stage(small, large):
    source, target = randomised(four_stages(*small)), four_stages(*large)
    growth = grow(source, target, "leading_block")
    assert not growth.dropped
    assert {growth.params[name] for name, _ in target.named_parameters()} <= {"copied", "expanded"}
    width, heads, third = small[0] * 4, small[0] * 4 // 8, large[1] // small[1]
    small_attn = source.layers[2].blocks[1].attn
    large_attn = target.layers[2].blocks[third].attn
    table = large_attn.relative_position_bias_table
    assert torch.equal(table[:, :heads], small_attn.relative_position_bias_table)
    qkv = large_attn.qkv.weight.unflatten(0, (3, -1))[:, :width, :width]
    assert torch.equal(qkv, small_attn.qkv.weight.unflatten(0, (3, -1)))
    merged = target.layers[1].downsample.reduction.weight.unflatten(1, (4, -1))
    assert torch.equal(
        merged[: 2 * small[0], :, : small[0]],
        source.layers[1].downsample.reduction.weight.unflatten(1, (4, -1)),
    )


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
def test_other_heads_and_windows_are_refused(grower):
    for options, axis in ((dict(head=16), "head_dim"), (dict(window_size=2), "height_0")):
        with pytest.raises(GrowthError, match=f"the axis '{axis}'"):
            grow(swin(16), swin(32, **options), grower)


# In open_clip's CLIP


class _Tower(TimmModel):
    """open_clip's timm tower around a small Swin, without timm's registry."""

    def __init__(self, trunk):
        nn.Module.__init__(self)
        self.image_size = trunk.patch_embed.img_size
        self.trunk = trunk
        self.head = nn.Sequential()
        self.head.add_module("proj", nn.Linear(trunk.num_features, 24, bias=False).double())


def clip(vision, text_width, cls=CLIP):
    text = dict(
        context_length=10, vocab_size=99, width=text_width, layers=2, heads=text_width // 16
    )
    return cls(24, vision, text).double()


@pytest.mark.parametrize(
    ("small", "large"), [((16, (2, 2)), (16, (2, 6))), ((16, (2, 2)), (32, (2, 6)))]
)
def test_a_swin_tower_inside_clip_keeps_the_function(small, large):
    models = []
    for trunk, text_width in ((swin(*small), 32), (swin(*large), 48)):
        model = clip(
            dict(image_size=16, patch_size=8, width=32, layers=1, head_width=16), text_width
        )
        model.visual = _Tower(trunk)
        models.append(model)
    randomised(models[0])
    growth = grow(*models, "lossless")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    image, text = (
        torch.randn(2, 3, 16, 16, dtype=torch.float64),
        torch.tensor([[5, 7, 98, *[0] * 7], [98, *[0] * 9]]),
    )
    with torch.no_grad():
        source_logits, target_logits = (m.eval().get_logits(image, text)[0] for m in models)
    assert torch.allclose(source_logits, target_logits, atol=1e-9)


def test_the_papers_towers_can_be_grown_into_each_other():
    archs = []
    for name in ("tiny", "small", "base", "large"):
        with torch.device("meta"):
            model = clip(
                dict(timm_model_name=f"swin_{name}_patch4_window7_224", image_size=224), 384
            )
        archs.append(describe(model))
    assert [a.sizes["visual.trunk.embed"] for a in archs] == [768, 768, 1024, 1536]
    assert [a.depths["visual.trunk.layers.2.blocks"] for a in archs] == [6, 18, 18, 18]
    assert {a.sizes["visual.trunk.head_dim"] for a in archs} == {32}
    for source, target in pairwise(archs):
        build_grower("leading_block").check(source, target)
