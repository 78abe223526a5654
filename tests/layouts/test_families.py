"""Encoders, image models and CLIPs, exact at whole multiples, elsewhere and in depth, or not."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from compt import GrowthError, LayoutError, describe, grow
from compt.growth.axes import find_layout
from compt.growth.optimizer_state import grow_state
from compt.testing import LayoutContract

pytest.importorskip("transformers")
pytest.importorskip("open_clip")
pytest.importorskip("mmpretrain")
pytest.importorskip("timm")

from tests.layouts.families import (
    FAMILIES,
    HOPS,
    clip_around,
    coca,
    convnext,
    dino,
    encoder,
    eva,
    modern_bert,
    resnet,
    swin,
    trained,
    vit,
)

LIKE_OTHERS = {
    *("ViT (timm)", "ViT (mmpretrain)", "CLIP (open_clip)", "CLIP without ln_pre"),
    *("BERT without a head", "CLIP, DINOv2", "CLIP, BERT as text tower", "CLIP, ConvNeXt"),
    *("ResNet, Bottleneck", "ResNeXt", "CLIP, ResNet of timm", "Swin (mmpretrain)", "RoBERTa"),
}
"""Families of other tests, and those that differ from others here in little."""
CASES = [
    pytest.param(name, hop, marks=[pytest.mark.slow] if name in LIKE_OTHERS else [])
    for name in FAMILIES
    for hop in HOPS
]


@pytest.mark.parametrize(("name", "hop"), CASES)
def test_growth_is_exact_or_says_why_not(name, hop):
    family = FAMILIES[name]
    growth = grow(*family.pair(hop))
    assert not growth.dropped
    if hop in family.reasons:
        assert not growth.function_preserving
        assert family.reasons[hop] in growth.reason
        assert growth.error > 1e-4
    else:
        assert growth.function_preserving, growth.reason
        assert growth.error < 1e-9


@pytest.mark.parametrize(
    "name", ["ModernBERT", "DINOv2 (registers, layer scale, SwiGLU)", "ResNet, BasicBlock", "CoCa"]
)
def test_other_growers_read_the_same_patterns(name):
    source, target = FAMILIES[name].pair("whole")
    clone = grow(source, target, "clone")
    assert clone.function_preserving, clone.reason
    assert clone.error < 1e-9
    corner = grow(source, target, "leading_block")
    assert not corner.dropped
    assert not corner.function_preserving


@pytest.mark.parametrize("name", ["ModernBERT", "EVA-02 (norms inside attention and MLP)", "CoCa"])
def test_plans_see_the_same_axes(name):
    """As a plan describes members, built and described under the meta device."""
    family = FAMILIES[name]
    with torch.device("meta"):
        planned = describe(family.make(**family.source))
    assert planned == describe(family.make(**family.source))


# Convolutional networks


def test_running_statistics_grow_with_the_channels():
    source, target = FAMILIES["ResNet, BasicBlock"].pair("other")
    grow(source, target)
    small, large = source.layer2[0].bn2, target.layer2[0].bn2
    assert torch.equal(large.running_mean[:16], small.running_mean)
    assert torch.equal(large.running_var[:16], small.running_var)
    assert not large.running_mean[16:].any()  # of a stream's pads, which hold 0
    assert (large.running_var[16:] > 0.5).all()
    assert large.num_batches_tracked == 17


def gradients(model):
    """Return the gradients of a fixed random direction of what the layout probes, by name."""
    (output,) = find_layout(model).probe(model.eval(), torch.Generator().manual_seed(3)).values()
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(4))
    (output * direction.to(output)).sum().backward()
    return {name: param.grad for name, param in model.named_parameters()}


@pytest.mark.parametrize("name", ["ResNet, Bottleneck", "ConvNeXt"])
@pytest.mark.filterwarnings("ignore:clone with noise=0")
def test_moments_grow_as_gradients_do(name):
    """Through batch norms, groups and what a norm spans."""
    grower = dict(type="clone", noise=0.0)
    source, target = FAMILIES[name].pair("whole")
    grow(source, target, grower)
    state = {f"exp_avg:{name}": gradient for name, gradient in gradients(source).items()}
    moments = grow_state(source, target, grower, state)
    for parameter, gradient in gradients(target).items():
        error = (moments[f"exp_avg:{parameter}"] - gradient).abs().max()
        assert error < 1e-9 * gradient.abs().max(), parameter


def test_another_kind_of_block_is_refused():
    with pytest.raises(GrowthError, match=r"'conv1\.weight' has the axes"):
        grow(resnet("BasicBlock", 16), resnet("Bottleneck", 16))


# Kinds of blocks that come again


def test_a_block_without_another_of_its_kind_grows_from_one_of_another():
    """A source of one global and one local block, and a target whose third is global again."""
    source, target = trained(modern_bert(layers=2)), modern_bert(layers=5)
    growth = grow(source, target)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9


@pytest.mark.parametrize(("small", "large"), [((1, 1), (3, 2)), ((3, 1), (6, 1))])
def test_windows_shift_in_every_second_block_whatever_the_depth(small, large):
    growth = grow(trained(swin(16, small)), swin(16, large))
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9


# What is not described is named


def test_options_without_a_pattern_are_named():
    with pytest.raises(LayoutError, match=r"does not describe 'rope\.freqs'"):
        describe(eva(rope_type="mixed"))
    model = clip_around(resnet)
    model.visual.head.add_module("pool", torch.nn.Linear(2, 2))
    with pytest.raises(LayoutError, match=r"does not describe 'head\.pool\.weight'"):
        describe(model)


def test_an_image_tower_as_wide_as_its_features_has_no_pattern_in_coca():
    """Its pooling has q, k and v in one tensor, of two streams."""
    model = coca()
    del model.visual.attn_pool.attn.k_proj_weight
    model.visual.attn_pool.attn.k_proj_weight = None
    model.visual.attn_pool.attn.in_proj_weight = torch.nn.Parameter(torch.zeros(96, 32))
    with pytest.raises(LayoutError, match=r"does not describe 'attn_pool\.attn\.in_proj_weight'"):
        describe(model)


# Contracts, in width and depth at once


@pytest.mark.slow
class TestBert(LayoutContract):
    def pair(self):
        return trained(encoder("Bert", 32, 2)), encoder("Bert", 64, 2, 80)


class TestModernBert(LayoutContract):
    def pair(self):
        return trained(modern_bert(32, 3)), modern_bert(64, 6, 100)


@pytest.mark.slow
class TestDino(LayoutContract):
    def pair(self):
        return trained(dino(32, 2)), dino(48, 3)


class TestEva02(LayoutContract):
    def pair(self):
        inside = partial(eva, scale_mlp=True, scale_attn_inner=True, init_values=0.1)
        return trained(inside(16, 2)), inside(48, 3)


@pytest.mark.slow
class TestPostNormVit(LayoutContract):
    def pair(self):
        from timm.models.vision_transformer import ResPostBlock

        make = partial(vit, block_fn=ResPostBlock)
        return trained(make(16, 2)), make(32, 3)


class TestResNet(LayoutContract):
    def pair(self):
        basic = partial(resnet, "BasicBlock")
        return trained(basic(16, (1, 1, 2, 1))), basic(32, (2, 1, 4, 3))


class TestConvNeXt(LayoutContract):
    def pair(self):
        v2 = partial(convnext, use_grn=True, ls_init_value=None)
        return trained(v2(8, (1, 1, 2, 1))), v2(16, (2, 1, 2, 3))


class TestCoCa(LayoutContract):
    def pair(self):
        return trained(coca(16, 1)), coca(32, 3)
