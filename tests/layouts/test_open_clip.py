"""Layouts of open_clip and timm, by which real CLIP models grow and keep the function."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from compt import GrowthError, LayoutError, describe, grow
from compt.growth.axes import find_layout
from compt.growth.measure import output_error
from compt.testing import LayoutContract
from compt.testing.contracts import randomised
from compt.testing.layouts.axes import require_known_roles

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel

from tests.layouts.families import siglip


def clip(
    width, layers, text_width, text_layers, *, embed_dim=32, head=16, cls=CLIP, text=None, **vision
):
    vision_cfg = (
        dict(image_size=32, width=width, layers=layers, head_width=head)
        | dict(patch_size=16)
        | vision
    )
    text_cfg = dict(
        context_length=10,
        vocab_size=99,
        width=text_width,
        layers=text_layers,
        heads=text_width // head,
    )
    text_cfg |= text or {}
    return cls(embed_dim, vision_cfg, text_cfg).double()


def timm_vit(width, depth, **options):
    options = {
        "img_size": 32,
        "patch_size": 16,
        "num_heads": width // 16,
        "num_classes": 0,
        **options,
    }
    return timm.models.vision_transformer.VisionTransformer(
        embed_dim=width, depth=depth, **options
    ).double()


class TestClip(LayoutContract):
    def pair(self):
        return clip(32, 2, 48, 2), clip(64, 4, 96, 3)


class TestCustomTextClip(LayoutContract):
    def pair(self):
        options = dict(cls=CustomTextCLIP, text=dict(proj_bias=True), no_ln_pre=True)
        return clip(32, 2, 48, 2, **options), clip(80, 3, 64, 3, **options)

    def test_roles_are_known(self):
        """Of models whose image towers end with features, some roles are SigLIP's alone."""
        require_known_roles(find_layout(siglip()), (*self.pair(), siglip()))


class TestTimmVit(LayoutContract):
    def pair(self):
        return timm_vit(32, 2, reg_tokens=3, qk_norm=True, num_classes=7), timm_vit(
            80, 3, reg_tokens=3, qk_norm=True, num_classes=7
        )


EXACT = {
    "192 -> 320, 12 -> 18 layers, 3 -> 5 heads, no ln_pre": (
        lambda: clip(192, 12, 192, 12, head=64, no_ln_pre=True),
        lambda: clip(320, 18, 320, 18, head=64, no_ln_pre=True),
    ),
    "whole multiple with ln_pre": (lambda: clip(32, 2, 32, 1), lambda: clip(96, 5, 80, 4)),
    "layer scale at another width": (
        lambda: clip(32, 2, 32, 2, no_ln_pre=True, ls_init_value=0.1, text=dict(ls_init_value=0.1)),
        lambda: clip(48, 3, 80, 2, no_ln_pre=True, ls_init_value=0.1, text=dict(ls_init_value=0.1)),
    ),
    "average pooling, norm after it": (
        lambda: clip(32, 2, 32, 2, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
        lambda: clip(48, 3, 80, 2, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
    ),
    "wider MLP and more depth only": (
        lambda: clip(32, 2, 32, 2, mlp_ratio=2.0),
        lambda: clip(32, 7, 32, 3, mlp_ratio=3.5),
    ),
    "wider feature space": (
        lambda: clip(32, 2, 32, 2, embed_dim=24),
        lambda: clip(64, 2, 48, 2, embed_dim=40),
    ),
    "q/k norms and scaled heads": (
        lambda: clip(32, 2, 32, 2, no_ln_pre=True, qk_norm=True, scale_heads=True),
        lambda: clip(48, 2, 32, 2, no_ln_pre=True, qk_norm=True, scale_heads=True),
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_lossless_keeps_features_and_logits_of_clip(case):
    source, target = (make() for make in EXACT[case])
    randomised(source)
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    source.eval(), target.eval()
    image = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    text = torch.tensor([[5, 7, 98, 0, 0, 0, 0, 0, 0, 0], [98, *[0] * 9], [*range(1, 10), 98]])
    with torch.no_grad():
        logits, grown_logits = (m.get_logits(image, text) for m in (source, target))
        for by_source, by_target in zip(logits, grown_logits, strict=True):
            assert torch.allclose(by_source, by_target, atol=1e-9)
        source_features, target_features = (m.encode_image(image, True) for m in (source, target))
    if source_features.shape == target_features.shape:
        assert torch.allclose(source_features, target_features, atol=1e-9)


PAIRS = [
    ((16, 1), (48, 5)),
    ((48, 3), (64, 3)),
    ((48, 2), (80, 7)),
    ((64, 4), (144, 6)),
    ((80, 5), (96, 12)),
]


@pytest.mark.parametrize(("small", "large"), PAIRS)
def test_lossless_is_exact_for_many_widths_depths_and_heads(small, large):
    """Both towers grow at non-multiples of width, depth and number of heads, twice in a row."""
    sizes = (small, large, (large[0] + 16, large[1] + 2))
    models = [clip(width, layers, width, layers, no_ln_pre=True) for width, layers in sizes]
    randomised(models[0])
    for source, target in pairwise(models):
        growth = grow(source, target)
        assert growth.function_preserving, growth.reason
        assert growth.error < 1e-9


REFUSED = {
    "heads of another size": (
        dict(head=16),
        dict(head=32),
        r"'visual\..*in_proj_weight': the axis 'visual\.head_dim'",
    ),
    "another vocabulary": (
        dict(),
        dict(text=dict(vocab_size=120)),
        r"'token_embedding\.weight': the axis 'vocab'.*99 to 120",
    ),
    "more positions": (
        dict(),
        dict(text=dict(context_length=12)),
        r"'positional_embedding': the axis 'position'.*10 to 12",
    ),
    "another patch size": (dict(), dict(patch_size=8), r"the axis 'visual\.(patch|height)'"),
    "a layer the source lacks": (
        dict(),
        dict(qk_norm=True),
        r"could grow into 'visual\..*attn\.ln_q\.weight'",
    ),
    "a narrower MLP": (
        dict(),
        dict(mlp_ratio=1.0),
        r"the axis 'visual\.mlp' would shrink from 128 to 64",
    ),
}


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_grow_is_named_before_any_write(case, grower):
    small, large, message = REFUSED[case]
    source, target = clip(32, 2, 32, 2, **small), clip(64, 2, 64, 2, **large)
    values = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(GrowthError, match=message):
        grow(source, target, grower)
    assert all(torch.equal(values[name], tensor) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize(("small", "large"), [(32, 48), (32, 80), (48, 64), (48, 128)])
def test_ln_pre_at_another_width_is_close_and_says_so(small, large):
    source, target = randomised(clip(small, 2, 32, 2)), clip(large, 3, 32, 2)
    growth = grow(source, target, "lossless")
    assert not growth.function_preserving
    assert "ln_pre" in growth.reason
    assert 0 < growth.error < 2e-2  # zero pads: 18 %, a constant in the pads: about 3 %


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(init_values=0.1),
        dict(class_token=False, global_pool="avg"),
        dict(pre_norm=False, fc_norm=True, global_pool="avg"),
    ],
)
def test_lossless_keeps_timm_vits_at_any_width(options):
    source, target = (
        randomised(timm_vit(48, 2, num_classes=7, **options)),
        timm_vit(112, 5, num_classes=7, **options),
    )
    growth = grow(source, target, "lossless")
    assert growth.function_preserving, growth.reason
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(source.eval()(image), target.eval()(image), atol=1e-9)


@pytest.mark.parametrize(("width", "exact"), [(96, True), (112, False)])
def test_attention_pooling_is_exact_at_whole_multiples_and_says_so(width, exact):
    """What it gives is a stream that no norm reads, so that a stream of another scale is seen."""
    options = dict(class_token=False, global_pool="map", num_classes=7)
    growth = grow(randomised(timm_vit(48, 2, **options)), timm_vit(width, 3, **options), "lossless")
    assert growth.function_preserving is exact
    assert (growth.error < 1e-9) is exact


class _Tower(TimmModel):
    """open_clip's timm tower around a small ViT, without timm's registry."""

    def __init__(self, width: int, depth: int, proj: str, **options) -> None:
        nn.Module.__init__(self)
        self.image_size = (32, 32)
        self.trunk = timm_vit(width, depth, **options)
        self.head = nn.Sequential()
        if proj == "linear":
            self.head.add_module("proj", nn.Linear(width, 24, bias=False).double())


def test_a_timm_tower_inside_clip_keeps_the_function():
    models = []
    for width, depth in ((48, 2), (80, 3)):
        model = clip(32, 2, 32, 2, embed_dim=24)
        model.visual = _Tower(width, depth, "linear")
        models.append(model)
    randomised(models[0])
    growth = grow(*models)
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    assert describe(models[1]).sizes["visual.trunk.embed"] == 80


def test_a_model_shaped_like_siglip_keeps_the_function_at_whole_multiples():
    """It has attention pooling and a logit bias, and projects texts into the image stream."""
    models = []
    for width, depth in ((48, 2), (96, 3)):
        model = clip(32, 2, 32, 2, embed_dim=width, cls=CustomTextCLIP)
        model.visual = _Tower(width, depth, "", class_token=False, global_pool="map")
        model.logit_bias = nn.Parameter(torch.tensor(-10.0, dtype=torch.float64))
        models.append(model)
    growth = grow(randomised(models[0]), models[1])
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-9
    other = copy.deepcopy(models[1])
    other.logit_bias.data += 1
    assert output_error(models[1], other) > 1e-3, "the probe sees the bias"


def test_fused_and_split_axes_of_qkv():
    arch = describe(clip(32, 2, 48, 2))
    param = arch.params["visual.transformer.resblocks.0.attn.in_proj_weight"]
    assert arch.shape(param) == (3, 2, 16, 32)
    assert arch.params["text_projection"].reads == (0,)
    assert arch.params["text_projection"].writes == (1,)
    assert arch.depths == {"visual.transformer.resblocks": 2, "transformer.resblocks": 2}


def test_a_tower_without_layout_is_named():
    model = clip(32, 2, 32, 2)
    model.visual = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(
        LayoutError, match=r"'torch\.nn\.modules\.container\.Sequential'.*(\n.*)*register_module"
    ):
        describe(model)


def test_a_different_activation_is_noticed():
    """Weights cannot carry QuickGELU, so that measurement corrects the claim."""
    source = randomised(clip(32, 2, 32, 2))
    target = CLIP(
        32,
        dict(image_size=32, patch_size=16, width=64, layers=2, head_width=16),
        dict(context_length=10, vocab_size=99, width=32, layers=2, heads=2),
        quick_gelu=True,
    ).double()
    growth = grow(source, target)
    assert not growth.function_preserving
    assert "GELU in the source, QuickGELU in the target" in growth.reason


def test_a_tower_without_blocks_is_described_and_not_grown():
    """An IndexError told nobody what was wrong."""
    sizes = dict(img_size=32, patch_size=16, embed_dim=32, num_heads=1, num_classes=0)
    timm_models = [timm.models.VisionTransformer(depth=depth, **sizes) for depth in (0, 2)]
    tower = dict(image_size=32, patch_size=16, width=32, heads=1, mlp_ratio=4.0, output_dim=32)
    own = [open_clip.transformer.VisionTransformer(layers=layers, **tower) for layers in (0, 2)]
    for source, target in (timm_models, own):
        assert "heads" not in describe(source).sizes
        with pytest.raises(GrowthError, match="no tensor that could grow into"):
            grow(source, target)
