"""Fill models from what mmpretrain, timm and compt write, strictly or not at all."""

from __future__ import annotations

import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.paradigms.mae_models import (
    classifier,
    image_folder,
    made,
    mae,
    normalised,
    raw,
    simmim,
    timm_folder,
    timm_vit,
    vit,
)

# isort: split
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from compt import ConfigError
from compt.paradigms.mae import Mae
from compt.testing.contracts import snapshot
from compt.weights import save_weights


def write(form, model, folder):
    """A checkpoint of an mmpretrain model, in one of the ways that there are."""
    paradigm, state = Mae(), model.state_dict()
    if form == "timm folder":
        paradigm.export(model, folder / "all")
        return folder / "all" / "timm"
    if form == "folder":
        paradigm.export(model, folder / "all")
        return folder / "all"
    if form in ("safetensors", "encoder as safetensors"):
        save_weights(
            model if form == "safetensors" else model.backbone, folder / "weights.safetensors"
        )
        return folder / "weights.safetensors"
    text = Config(dict(model=model.mmpretrain_config)).pretty_text
    content = {
        "checkpoint with its config": {
            "meta": {"cfg": text, "epoch": 3},
            "state_dict": state,
            "optimizer": {"lr": 1},
        },
        "checkpoint": {"state_dict": state},
        "state dict": state,
        "encoder": model.backbone.state_dict(),
        "encoder in a checkpoint": {
            "state_dict": {n: v for n, v in state.items() if n.startswith("backbone.")}
        },
        "of several processes": {f"module.{name}": value for name, value in state.items()},
    }[form]
    torch.save(content, folder / "weights.pth")
    return folder / "weights.pth"


WHOLE = [
    "folder",
    "safetensors",
    "checkpoint with its config",
    "checkpoint",
    "state dict",
    "of several processes",
]
ENCODER = ["timm folder", "encoder as safetensors", "encoder", "encoder in a checkpoint"]


@pytest.mark.parametrize("form", WHOLE)
def test_a_whole_checkpoint_fills_the_whole_model(form, tmp_path):
    paradigm, source = made()
    _, model = made(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paradigm.load_weights(model, write(form, source, tmp_path))
    assert all(
        torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("form", ENCODER)
def test_an_encoder_fills_the_encoder_and_says_so(form, tmp_path):
    paradigm, source = made()
    _, model = made(seed=1)
    initial = snapshot(model)
    with pytest.warns(
        UserWarning, match=r"filled the backbone; the rest of the model starts fresh"
    ):
        paradigm.load_weights(model, write(form, source, tmp_path))
    for name, value in model.state_dict().items():
        assert torch.equal(
            value, source.state_dict()[name] if name.startswith("backbone.") else initial[name]
        ), name


@pytest.mark.parametrize("form", ["folder", "state_dict file", "pth of a trainer"])
def test_timms_own_checkpoints_fill_the_encoder(form, tmp_path):
    """Load a head for 7 classes, which an encoder has no place for.

    It computes the same.
    """
    theirs = timm_vit(num_classes=7)
    if form == "folder":
        path = timm_folder(tmp_path / "hub", theirs)
    elif form == "state_dict file":
        path = tmp_path / "timm.safetensors"
        save_file(theirs.state_dict(), path)
    else:
        path = tmp_path / "timm.pth"
        torch.save(
            {"epoch": 3, "arch": "vit", "state_dict": theirs.state_dict(), "args": {"lr": 0.1}},
            path,
        )
    paradigm, model = made()
    with pytest.warns(UserWarning, match="filled the backbone"):
        paradigm.load_weights(model, path)
    images = normalised(raw()["inputs"])
    with torch.no_grad():
        assert torch.allclose(
            model.extract_feat(images)[-1], theirs.forward_features(images), atol=1e-5
        )


@pytest.mark.parametrize(
    ("target", "fresh"),
    [
        (classifier(), r"backbone; the rest"),
        (
            classifier(out_type="avg_featmap", final_norm=False),
            r"backbone but for ln2\.bias, ln2\.weight; the rest",
        ),
        (classifier(out_type="avg_featmap"), r"backbone but for ln2\.bias, ln2\.weight; the rest"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "timm folder"])
def test_a_classifier_is_filled_from_an_autoencoder(form, target, fresh, tmp_path):
    """Start a norm fresh where mmpretrain's recipe averages patches and norms them anew."""
    paradigm, source = made()
    _, model = made(target, seed=1)
    initial = snapshot(model)
    with pytest.warns(UserWarning, match=fresh):
        paradigm.load_weights(model, write(form, source, tmp_path))
    for name, value in model.state_dict().items():
        inherited = name.startswith("backbone.") and "backbone.ln2" not in name
        assert torch.equal(value, source.state_dict()[name] if inherited else initial[name]), name


def test_a_classifier_on_a_swin_is_filled_from_simmim(tmp_path):
    paradigm, source = made(simmim())
    head = dict(type="mmpretrain.LinearClsHead", num_classes=3, in_channels=16)
    backbone = dict(simmim()["backbone"], type="mmpretrain.SwinTransformer")
    neck = dict(type="mmpretrain.GlobalAveragePooling")
    _, model = made(
        dict(type="mmpretrain.ImageClassifier", backbone=backbone, neck=neck, head=head), seed=1
    )
    with pytest.warns(UserWarning, match="filled the backbone"):
        paradigm.load_weights(model, write("folder", source, tmp_path))
    assert all(
        torch.equal(v, source.backbone.state_dict()[n])
        for n, v in model.backbone.state_dict().items()
    )


WRONG = {
    "a wider one": mae(48),
    "a deeper one": mae(32, 3),
    "a shallower one": mae(32, 1),
    "another image size": mae(size=16),
    "a wider MLP": mae(arch=dict(vit()["arch"], feedforward_channels=64)),
    "no bias in qkv": mae(layer_cfgs=dict(qkv_bias=False)),
    "layer scale": mae(layer_cfgs=dict(layer_scale_init_value=0.1)),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("form", ["folder", "timm folder", "state dict", "encoder"])
def test_another_models_weights_are_refused_and_change_nothing(case, form, tmp_path):
    _, source = made(WRONG[case])
    paradigm, model = made(seed=1)
    initial = snapshot(model)
    path = write(form, source, tmp_path)
    with pytest.raises(ConfigError, match="are not of this model") as caught:
        paradigm.load_weights(model, path)
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, initial[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("form", ["folder", "timm folder", "checkpoint with its config"])
def test_other_heads_are_refused_where_a_checkpoint_tells(form, tmp_path):
    """No shape shows them."""
    _, source = made(mae(arch=dict(vit()["arch"], num_heads=4)))
    path = write(form, source, tmp_path)
    for target in (mae(), classifier(out_type="avg_featmap", final_norm=False)):
        paradigm, model = made(target, seed=1)
        initial = snapshot(model)
        with pytest.raises(ConfigError, match="has 4 heads in place of 2"):
            paradigm.load_weights(model, path)
        assert all(torch.equal(value, initial[name]) for name, value in model.state_dict().items())


def test_what_holds_no_weights_is_refused(tmp_path):
    paradigm, model = made()
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    (tmp_path / "folder").mkdir()
    for name in ("empty.pth", "other.pth", "broken.pth", "folder", "nowhere.pth"):
        with pytest.raises(ConfigError, match=name.partition(".")[0]):
            paradigm.load_weights(model, tmp_path / name)


def test_a_model_of_timm_is_filled_from_timms_weights(tmp_path):
    paradigm, theirs = Mae(), timm_vit(num_classes=0)
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    model = timm_vit(num_classes=0)
    nn.init.zeros_(model.cls_token)
    paradigm.load_weights(model, tmp_path / "timm.safetensors")
    assert torch.equal(model.cls_token, theirs.cls_token)
    with pytest.raises(ConfigError, match="not of this model"):
        paradigm.load_weights(timm_vit(num_classes=3), tmp_path / "timm.safetensors")


def test_a_checkpoint_of_mmengines_runner_is_read_without_its_log(tmp_path):
    """Write a checkpoint as mmpretrain's own training does.

    Config, log buffers, optimizer and schedules stand beside the weights.
    """
    data = image_folder(tmp_path / "images", count=4)
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="RandomResizedCrop", scale=32),
        dict(type="PackInputs"),
    ]
    config = Config(
        dict(
            default_scope="mmpretrain",
            work_dir=str(tmp_path / "run"),
            model=mae(),
            data_preprocessor=dict(
                type="SelfSupDataPreprocessor", mean=[0.0] * 3, std=[9.0] * 3, to_rgb=True
            ),
            train_dataloader=dict(
                batch_size=4,
                sampler=dict(type="DefaultSampler", shuffle=True),
                collate_fn=dict(type="default_collate"),
                dataset=dict(type="CustomDataset", data_root=str(data), pipeline=pipeline),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(
                optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
                paramwise_cfg=dict(
                    custom_keys={"cls_token": dict(decay_mult=0.0), ".ln": dict(decay_mult=0.0)}
                ),
            ),
            param_scheduler=[dict(type="CosineAnnealingLR", T_max=3, convert_to_iter_based=True)],
            default_hooks=dict(logger=dict(type="LoggerHook", interval=1)),
            experiment_name=f"mae_{tmp_path.name}",
        )
    )
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        runner = Runner.from_cfg(config)
        runner.train()
    path = tmp_path / "run" / "epoch_1.pth"
    content = torch.load(path, weights_only=False)
    assert {"message_hub", "optimizer", "param_schedulers"} <= content.keys()
    paradigm, model = made(
        dict(mae(), data_preprocessor=config.data_preprocessor.to_dict()), seed=1
    )
    paradigm.load_weights(model, path)
    loaded = Mae().load(path)
    for each in (model, loaded):
        assert all(
            torch.equal(value, content["state_dict"][name])
            for name, value in each.state_dict().items()
        )
    assert loaded.mmpretrain_config["data_preprocessor"]["std"] == [9.0] * 3
