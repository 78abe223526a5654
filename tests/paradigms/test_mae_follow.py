"""Carry over what checkpoints of mmpretrain and timm say beside sizes and weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.paradigms.mae_models import (
    SIZE,
    classifier,
    image_folder,
    made,
    mae,
    timm_args,
    timm_folder,
    timm_vit,
)

# isort: split
import timm
from mmengine.config import Config

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.mae import Mae
from compt.paradigms.mae.data import ImageDataset

TIMM_PIXELS: dict[str, Any] = dict(
    mean=[0.1, 0.2, 0.3],
    std=[0.4, 0.5, 0.6],
    interpolation="bilinear",
    crop_pct=0.9,
    crop_mode="squash",
)
LABELS: dict[str, Any] = dict(label_names=["a", "b", "c"], label_descriptions={"a": "A"})
LARGE = dict(architecture="vit_base_patch16_224", model_args=timm_args(64, 3))
PIXELS = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
PIPELINE = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=40, edge="short", backend="pillow", interpolation="bilinear"),
    dict(type="CenterCrop", crop_size=SIZE),
    dict(type="PackInputs"),
]


@pytest.fixture
def of_timm(tmp_path) -> Path:
    """A folder of timm with three classes, as the hub has them."""
    folder = timm_folder(tmp_path / "timm", timm_vit(num_classes=3))
    changed(folder, pixels=dict(TIMM_PIXELS, tag="x"), tags=["image"], **LABELS)
    return folder


def changed(folder: Path, pixels: Any = None, **more: Any) -> None:
    content = json.loads((folder / "config.json").read_text()) | more
    content["pretrained_cfg"] |= pixels or {}
    (folder / "config.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def of_mmpretrain(tmp_path_factory) -> Path:
    """A checkpoint of mmpretrain's Runner, with its config and classes."""
    path = tmp_path_factory.mktemp("mmpretrain") / "epoch_3.pth"
    _, model = made(classifier())
    config = Config(
        dict(
            model=classifier(),
            data_preprocessor=dict(PIXELS, num_classes=3),
            test_dataloader=dict(dataset=dict(type="ImageNet", pipeline=PIPELINE)),
            optim_wrapper=dict(type="OptimWrapper"),
        )
    )
    meta = dict(cfg=config.pretty_text, dataset_meta=dict(classes=("a", "b", "c")))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return path


def followed(path: Path, **options: Any) -> Mae:
    paradigm = Mae(**options)
    paradigm.follow(path)
    return paradigm


def exported(paradigm: Mae, model: Any, out: Path) -> Path:
    out.mkdir()
    paradigm.export(paradigm.build_model(Member("large", model)), out)
    return out


def timm_config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


# timm


def test_a_timm_folders_config_is_carried(of_timm, tmp_path):
    paradigm = followed(of_timm)
    out = exported(paradigm, LARGE, tmp_path / "out")
    content = timm_config(out)
    assert {name: content[name] for name in LABELS} == LABELS
    assert (content["tags"], content["num_classes"]) == (["image"], 3)
    expected = dict(TIMM_PIXELS, license="apache-2.0", tag="x", input_size=[3, SIZE, SIZE])
    assert {name: content["pretrained_cfg"][name] for name in expected} == expected
    assert content["model_args"]["embed_dim"] == 64 and paradigm.notes == ()
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert timm.data.resolve_model_data_config(theirs)["crop_mode"] == "squash"


def test_settings_that_a_timm_model_leaves_out_are_the_folders(of_timm, tmp_path):
    sizes = {name: LARGE["model_args"][name] for name in ("embed_dim", "depth", "num_heads")}
    model = dict(architecture="vit_base_patch16_224", model_args=sizes)
    changed(of_timm, model_args=dict(timm_args(), init_values=0.1))
    arguments = timm_config(exported(followed(of_timm), model, tmp_path / "out"))["model_args"]
    assert (arguments["img_size"], arguments["init_values"]) == (SIZE, 0.1)


def test_labels_of_other_classes_are_left_out_and_named(of_timm, tmp_path):
    paradigm = followed(of_timm)
    content = timm_config(exported(paradigm, dict(LARGE, num_classes=5), tmp_path / "out"))
    assert not LABELS.keys() & content.keys() and content["tags"] == ["image"]
    notes = " ".join(paradigm.notes)
    assert "labels" in notes and "num_classes=5" in notes


def test_pixels_of_a_timm_model_that_says_otherwise_are_named(of_timm, tmp_path):
    paradigm = followed(of_timm)
    model = dict(LARGE, pretrained_cfg=dict(mean=[0.9, 0.9, 0.9]))
    content = timm_config(exported(paradigm, model, tmp_path / "out"))
    assert content["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]
    (note,) = paradigm.notes
    assert "[0.9, 0.9, 0.9]" in note and "[0.1, 0.2, 0.3]" in note


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_224_in21k", "deit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k"],
)
def test_other_names_of_vits_are_loaded(name, tmp_path):
    folder = timm_folder(tmp_path / "timm", timm_vit(num_classes=3))
    changed(folder, architecture=name)
    assert Mae().recognises(folder)
    assert Mae().load(folder).num_classes == 3


def test_weights_in_an_old_form_are_read_as_timm_does(tmp_path):
    model = timm_vit(num_classes=3)
    folder = timm_folder(tmp_path / "timm", model)
    (folder / "model.safetensors").unlink()
    state = {**model.state_dict(), "pre_logits.fc.weight": torch.zeros(3)}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    torch.save(state, folder / "pytorch_model.bin")
    loaded: Any = Mae().load(folder)
    assert torch.equal(loaded.patch_embed.proj.weight, model.patch_embed.proj.weight)


def test_members_of_a_chain_prepare_pixels_as_the_timm_folder_says(of_timm, tmp_path):
    data = image_folder(tmp_path / "images", count=1)
    source = dict(type="folder", train=str(data), val=str(data))
    paradigm = followed(of_timm, data=source)
    out = exported(paradigm, mae(), tmp_path / "out")
    config = Config.fromfile(str(out / "model.py")).model.data_preprocessor
    assert np.allclose(config.mean, [25.5, 51.0, 76.5]) and config.to_rgb
    content = timm_config(out / "timm")
    written = {name: content["pretrained_cfg"][name] for name in TIMM_PIXELS}
    assert np.allclose(written.pop("mean"), TIMM_PIXELS["mean"])
    assert np.allclose(written.pop("std"), TIMM_PIXELS["std"])
    assert written == {k: v for k, v in TIMM_PIXELS.items() if k not in ("mean", "std")}
    raw = paradigm.build_dataset("val")[0]["inputs"].flip(0)
    image = Image.open(data / "cat" / "0.png")
    theirs = timm.data.create_transform((3, SIZE, SIZE), **TIMM_PIXELS)
    mean, std = (torch.tensor(TIMM_PIXELS[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert torch.allclose((raw / 255 - mean) / std, theirs(image), atol=0.02)


@pytest.mark.parametrize(("key", "value"), [("crop_mode", "border"), ("interpolation", "random")])
def test_pixels_that_cannot_be_followed_are_refused_before_training(key, value, of_timm, tmp_path):
    changed(of_timm, pixels={key: value})
    data = str(image_folder(tmp_path / "images", count=1))
    paradigm = followed(of_timm, data=dict(type="folder", train=data, val=data))
    paradigm.build_model(Member("a", mae()))
    with pytest.raises(ConfigError, match=f"{key} '{value}' cannot be followed"):
        paradigm.build_dataset("val")


# mmpretrain


def test_a_checkpoints_pixels_pipeline_and_classes_are_carried(of_mmpretrain, tmp_path):
    paradigm = followed(of_mmpretrain)
    out = exported(paradigm, classifier(64, 3), tmp_path / "out")
    config = Config.fromfile(str(out / "model.py"))
    written = config.model.data_preprocessor
    assert {name: written[name] for name in PIXELS} == PIXELS
    assert config.test_dataloader.dataset.pipeline == PIPELINE and paradigm.notes == ()
    meta = torch.load(out / "model.pth", weights_only=True)["meta"]
    assert meta["dataset_meta"] == dict(classes=("a", "b", "c"))
    again = exported(followed(out), classifier(64, 4), tmp_path / "again")
    assert torch.load(again / "model.pth", weights_only=True)["meta"]["dataset_meta"]


def test_old_names_of_classes_are_carried(of_mmpretrain, tmp_path):
    content = torch.load(of_mmpretrain, weights_only=True)
    del content["meta"]["dataset_meta"]
    content["meta"]["CLASSES"] = ["a", "b", "c"]
    torch.save(content, tmp_path / "old.pth")
    out = exported(followed(tmp_path / "old.pth"), classifier(), tmp_path / "out")
    meta = torch.load(out / "model.pth", weights_only=True)["meta"]
    assert meta["dataset_meta"] == dict(classes=["a", "b", "c"])


def test_classes_of_the_data_come_before_the_checkpoints(of_mmpretrain, tmp_path):
    data = str(image_folder(tmp_path / "images", ("x", "y", "z"), count=1))
    source = dict(type="folder", train=data, val=data)
    paradigm = followed(of_mmpretrain, data=source)
    out = exported(paradigm, classifier(), tmp_path / "out")
    meta = torch.load(out / "model.pth", weights_only=True)["meta"]
    assert meta["dataset_meta"] == dict(classes=["x", "y", "z"])


def test_held_out_images_go_through_the_checkpoints_pipeline(of_mmpretrain, tmp_path):
    data = str(image_folder(tmp_path / "images", count=1))
    source = dict(type="folder", train=data, val=data)
    paradigm = followed(of_mmpretrain, data=source)
    paradigm.build_model(Member("a", classifier()))
    dataset: Any = paradigm.build_dataset("val")
    expected = ImageDataset(dataset.source, PIPELINE[1:], dataset.classes)
    assert torch.equal(dataset[0]["inputs"], expected[0]["inputs"])
    smaller = followed(of_mmpretrain, data=source)
    smaller.build_model(Member("a", mae(size=16)))
    with pytest.raises(ConfigError, match=r"images of \(32, 32\), the members take \(16, 16\)"):
        smaller.build_dataset("val")


def test_pixels_that_a_member_or_the_paradigm_say_otherwise_are_named(of_mmpretrain):
    own = dict(PIXELS, type="ClsDataPreprocessor", mean=[7.0] * 3)
    for paradigm, model in (
        (followed(of_mmpretrain), dict(classifier(), data_preprocessor=own)),
        (followed(of_mmpretrain, data_preprocessor=own), classifier()),
    ):
        built: Any = paradigm.build_model(Member("a", copy.deepcopy(model)))
        assert built.mmpretrain_config["data_preprocessor"]["mean"] == [7.0] * 3
        assert "mean=[7.0, 7.0, 7.0]" in paradigm.notes[0]
        assert "[1.0, 2.0, 3.0]" in paradigm.notes[0]


def test_a_model_of_another_task_takes_the_pixels_alone(of_mmpretrain):
    model: Any = followed(of_mmpretrain).build_model(Member("a", mae()))
    written = model.mmpretrain_config["data_preprocessor"]
    assert written == dict(PIXELS, type="mmpretrain.SelfSupDataPreprocessor")


def test_a_file_of_weights_says_nothing_of_pixels_and_that_is_named(tmp_path):
    torch.save(made()[1].state_dict(), tmp_path / "weights.pth")
    (note,) = followed(tmp_path / "weights.pth").notes
    assert "weights alone" in note and "weights.pth" in note


@pytest.mark.parametrize("key", ["state_dict_ema", "ema_state_dict"])
def test_averages_that_are_not_read_are_named(key, tmp_path):
    state = made()[1].state_dict()
    torch.save({"state_dict": state, key: state}, tmp_path / "last.pth")
    assert f"({key}), which is not read" in followed(tmp_path / "last.pth").notes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_format_of_weights_is_read(dtype, tmp_path):
    paradigm, model = made(classifier())
    paradigm.export(model.to(dtype), tmp_path)
    for path in (tmp_path, tmp_path / "model.pth", tmp_path / "timm"):
        assert Mae().weight_dtype(path) is dtype
    assert Mae().weight_dtype(tmp_path / "nowhere.pth") is None


def test_exports_are_the_same_bytes(tmp_path):
    paradigm, model = made()
    for name in "ab":
        paradigm.export(model, tmp_path / name)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes(), path.name
