"""Build all models of MAE, and refuse what cannot be one."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.paradigms.mae_models import (
    MOCO_PIPELINE,
    classifier,
    made,
    mae,
    moco,
    normalised,
    prepared,
    raw,
)

# isort: split
from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.mae import Mae
from compt.paradigms.mae.features import features, whole

# Features


@pytest.mark.parametrize("out_type", ["raw", "featmap", "avg_featmap", "cls_token"])
def test_features_are_those_of_the_patches(out_type):
    """Pool whatever a backbone returns.

    That is [B, N, D] with a class token in front, a map, or one vector.
    """
    _, model = made(classifier(out_type=out_type))
    images = normalised(raw()["inputs"])
    with torch.no_grad():
        output = model.backbone(images)[-1]
        outputs = features(model, [model.backbone(images)])
        pooled = whole(model, {"inputs": images})
    expected = {"raw": lambda: output[:, 1:].mean(1), "featmap": lambda: output.mean((2, 3))}.get(
        out_type, lambda: output
    )()
    assert torch.allclose(outputs["pooled"], expected, atol=1e-6)
    assert torch.equal(pooled, outputs["pooled"])
    assert outputs["tokens"].shape == (4, {"raw": 17, "featmap": 16}.get(out_type, 1), 32)


def test_features_of_several_views_stand_after_each_other():
    _, model = made(classifier(out_type="raw"))
    views = [model.backbone(normalised(raw(seed=i)["inputs"])) for i in range(2)]
    outputs = features(model, views)
    assert outputs["tokens"].shape == (8, 17, 32)
    assert torch.equal(outputs["tokens"][4:], views[1][-1])


def test_moco_v3_has_a_loss_and_the_features_of_both_views(data):
    paradigm, model = made(moco(), data=data, pipeline=MOCO_PIPELINE)
    model.train()
    dataset = paradigm.build_dataset("train")
    batch = prepared(paradigm, paradigm.collate([dataset[i] for i in range(5)]))
    assert [view.shape for view in batch["inputs"]] == [(5, 3, 32, 32)] * 2
    assert set(batch) == {"inputs", "data_samples"}, "a ViT that masks nothing gets no masks"
    outputs = paradigm.forward(model, batch)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == dict(
        loss=(), tokens=(10, 1, 32), pooled=(10, 32)
    )
    first = model.backbone(batch["inputs"][0])[-1]
    assert torch.allclose(outputs["pooled"][:5], first, atol=1e-6)
    outputs["loss"].backward()
    assert model.backbone.patch_embed.projection.weight.grad.any()


# What cannot be


BAD = {
    "another image size": (
        mae(size=16),
        r"'b' has image size \(16, 16\), the members before it \(32, 32\)",
    ),
    "other pixels": (
        dict(mae(), data_preprocessor=dict(type="SelfSupDataPreprocessor")),
        "'b' has data_preprocessor",
    ),
    "an unknown type": (
        dict(mae(), type="mmpretrain.MEA"),
        "cannot build the model of member 'b'.*MEA",
    ),
    "an unknown option": (mae(widht=3), "cannot build the model of member 'b'.*widht"),
    "no config": ("nowhere.py", "The model of member 'b' is no mmpretrain config: 'nowhere.py'"),
    "a name of no ViT of timm": ("resnet18", "'resnet18' is no VisionTransformer"),
    "a misspelt name of timm": (
        dict(architecture="vit_base_pach16_224"),
        "timm has no model 'vit_base_pach16_224'.*Did you mean 'vit_base_patch16_224'",
    ),
    "a model without an image size": (
        dict(
            type="mmpretrain.ImageClassifier",
            backbone=dict(type="mmpretrain.ResNet", depth=18),
            head=dict(type="mmpretrain.LinearClsHead", num_classes=3, in_channels=512),
        ),
        "ResNet does not say what size",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_built_is_named(case):
    model, message = BAD[case]
    paradigm, _ = made()
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        paradigm.build_model(Member("b", model))


def test_another_number_of_patches_is_refused():
    paradigm, _ = made()
    other = mae()
    other["backbone"]["patch_size"] = 16
    with pytest.raises(ConfigError, match="'b' has number of patches 4, the members before it 16"):
        paradigm.build_model(Member("b", other))


def test_building_leaves_the_config_alone():
    model = classifier()
    config = copy.deepcopy(model)
    preprocessor = dict(type="ClsDataPreprocessor", mean=[0.0] * 3, std=[1.0] * 3)
    paradigm = Mae(data_preprocessor=preprocessor)
    paradigm.build_model(Member("a", model))
    assert model == config
    assert paradigm.data_preprocessor == dict(
        type="ClsDataPreprocessor", mean=[0.0] * 3, std=[1.0] * 3
    )


def test_a_model_of_timm_has_no_loss():
    paradigm, _ = made()
    small = dict(
        architecture="vit_base_patch16_224",
        model_args=dict(img_size=32, embed_dim=32, depth=1, num_heads=2),
    )
    model = paradigm.build_model(Member("t", small))
    with pytest.raises(ConfigError, match="no loss"):
        paradigm.forward(model, prepared(paradigm, raw()))


def test_unknown_options_of_the_probe_are_refused():
    with pytest.raises(ConfigError, match="smaples"):
        Mae(probe=dict(smaples=3))


def test_augmentations_of_whole_batches_are_for_training_alone():
    """Leave images and labels of held-out batches as they are under Mixup."""
    mixed = dict(classifier(), train_cfg=dict(augments=dict(type="Mixup", alpha=1.0)))
    mixed["data_preprocessor"] = dict(mean=[0.0] * 3, std=[1.0] * 3, num_classes=3)
    paradigm, model = made(mixed)
    batch = raw(labels=[0, 1, 2, 0])
    trained = prepared(paradigm, batch)
    with torch.no_grad():
        held_out = prepared(paradigm, batch)
    assert torch.equal(held_out["inputs"], batch["inputs"].float())
    assert not torch.equal(trained["inputs"], held_out["inputs"])
    assert paradigm.forward(model, trained)["loss"].isfinite()
