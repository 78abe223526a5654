"""Layouts of mmpretrain's ViTs, masked autoencoders of two streams, and classifiers."""

from __future__ import annotations

import pytest
import torch

from tests.paradigms.mae_models import PATCHES, classifier, doubled, mae, simmim, vit

# isort: split
from compt import GrowthError, describe, grow
from compt.paradigms.mae.mmpretrain import MODELS, scope
from compt.testing import LayoutContract
from compt.testing.contracts import snapshot

LAYER_SCALE = dict(layer_scale_init_value=0.1)


class TestMae(LayoutContract):
    def pair(self):
        return doubled(mae(32, 2, 32, 1)), doubled(mae(80, 3, 48, 2))


class TestMaeWithLayerScale(LayoutContract):
    def pair(self):
        options = dict(layer_cfgs=LAYER_SCALE)
        return doubled(mae(32, 2, **options)), doubled(mae(48, 3, 32, 2, **options))


class TestVisionTransformer(LayoutContract):
    def pair(self):
        return doubled(vit(32, 2, out_type="raw")), doubled(vit(80, 3, out_type="raw"))


class TestVisionTransformerWithAllOptions(LayoutContract):
    """Through a norm that writes the stream, growth is exact at multiples alone."""

    def pair(self):
        options = dict(pre_norm=True, out_type="avg_featmap", qkv_bias=False, **LAYER_SCALE)
        return doubled(vit(32, 2, **options)), doubled(vit(64, 3, **options))


class TestClassifier(LayoutContract):
    def pair(self):
        return doubled(classifier(32, 2)), doubled(classifier(80, 3))


class TestSimMim(LayoutContract):
    def pair(self):
        return doubled(simmim(8, 2)), doubled(simmim(16, 2))


# What is described


def test_an_autoencoder_has_two_streams_and_two_stacks():
    arch = describe(doubled(mae(32, 2, 48, 3)))
    assert {a: arch.sizes[a] for a, role in arch.roles.items() if role == "stream"} == {
        "backbone.embed": 32,
        "neck.embed": 48,
    }
    assert arch.depths == {"backbone.layers": 2, "neck.decoder_blocks": 3}
    assert {a: arch.sizes[a] for a, role in arch.roles.items() if role == "hidden"} == {
        "backbone.heads": 2,
        "backbone.mlp": 96,
        "neck.heads": 3,
        "neck.mlp": 192,
    }
    between = arch.params["neck.decoder_embed.weight"]
    assert between.groups == (("neck.embed",), ("backbone.embed",))
    assert (between.reads, between.writes) == ((1,), (0,))
    assert arch.sizes["neck.pixels"] == 3 * 8 * 8


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_norm_before_the_blocks_parts_the_patches_from_the_stream(pre_norm):
    arch = describe(doubled(vit(32, pre_norm=pre_norm)))
    streams = {axis for axis, role in arch.roles.items() if role == "stream"}
    assert streams == ({"patch_embed", "embed"} if pre_norm else {"embed"})
    assert arch.params["cls_token"].axes[-1] == ("patch_embed" if pre_norm else "embed")


@pytest.mark.parametrize("name", ["s", "b", "l", "h", "deit-t"])
def test_mmpretrains_own_sizes_are_described(name):
    with torch.device("meta"), scope():
        backbone = MODELS.build(dict(type="VisionTransformer", arch=name))
    arch = describe(backbone)
    settings = backbone.arch_settings
    assert arch.sizes["embed"] == settings["embed_dims"]
    assert (arch.sizes["heads"], arch.sizes["mlp"]) == (
        settings["num_heads"],
        settings["feedforward_channels"],
    )
    assert arch.depths == {"layers": settings["num_layers"]}


def test_a_decoder_without_blocks_is_described():
    assert describe(doubled(mae(32, 2, 16, 0))).depths == {"backbone.layers": 2}


# Refusals


def changed(config, **arch):
    config["backbone"]["arch"] |= arch
    return config


def larger_patches(config, count=PATCHES):
    for child in ("backbone", "neck", "head"):
        config[child]["patch_size"] = 16
    config["neck"]["num_patches"] = count
    return config


def other_target(config):
    config["neck"]["predict_feature_dim"] = 200
    return config


REFUSED = {
    "heads of another size": (
        mae(32),
        changed(mae(64), num_heads=2),
        r"the axis 'backbone\.head_dim' changes from 16 to 32",
    ),
    "another image size": (
        mae(32),
        mae(64, size=64),
        r"the axis 'backbone\.height' changes from 4 to 8",
    ),
    "larger patches": (
        mae(32),
        larger_patches(mae(64, size=64)),
        r"the axis 'backbone\.patch' changes from 8 to 16",
    ),
    "fewer patches": (
        mae(32),
        larger_patches(mae(64), 4),
        r"the axis 'backbone\.height' changes from 4 to 2",
    ),
    "a narrower decoder": (
        mae(32, 2, 32),
        mae(64, 2, 16),
        r"the axis 'neck\.embed' would shrink from 32 to 16",
    ),
    "a shallower decoder": (
        mae(32, 2, 16, 2),
        mae(64, 2, 16, 1),
        r"'neck\.decoder_blocks' would shrink from 2 to 1 blocks",
    ),
    "a layer the source lacks": (
        mae(32),
        mae(64, layer_cfgs=LAYER_SCALE),
        r"could grow into 'backbone\.layers\.0\.attn\.gamma1\.weight'",
    ),
    "another target": (
        mae(32),
        other_target(mae(64)),
        r"the axis 'neck\.pixels' changes from 192 to 200",
    ),
    "other classes": (
        classifier(32),
        classifier(64, classes=5),
        r"the axis 'classes' changes from 3 to 5",
    ),
}


@pytest.mark.parametrize("grower", ["lossless", "leading_block"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_grow_is_named_before_any_write(case, grower):
    small, large, message = REFUSED[case]
    source, target = doubled(small), doubled(large)
    values = snapshot(target)
    with pytest.raises(GrowthError, match=message):
        grow(source, target, grower)
    assert all(torch.equal(values[name], tensor) for name, tensor in snapshot(target).items())
