"""Exchange exports of CLIP with open_clip."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

open_clip = pytest.importorskip("open_clip")

from compt import ConfigError
from compt.paradigms.clip.paradigm import Clip
from compt.weights import save_weights
from tests.paradigms.clip_models import (
    CUSTOM,
    KINDS,
    MEAN,
    MODEL,
    STD,
    changed,
    made,
    prepared,
    raw,
)
from tests.paradigms.conftest import CAPTIONS, SIZES, picture


def equal_features(paradigm: Clip, one: nn.Module, other: nn.Module, batch) -> bool:
    with torch.no_grad():
        first, second = (paradigm.forward(m.eval(), batch) for m in (one, other))
    return all(torch.equal(first[k], second[k]) for k in paradigm.outputs)


@pytest.mark.parametrize(("config", "cls"), KINDS)
def test_open_clip_loads_what_is_exported(config, cls, data, tmp_path):
    paradigm, model = made(config, data=data, mean=MEAN, std=STD)
    batch = prepared(paradigm, raw(paradigm.build_dataset("val")))
    paradigm.export(model, tmp_path)
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert type(theirs) is cls
    assert theirs.state_dict().keys() == model.state_dict().keys()
    assert equal_features(paradigm, model, theirs, batch)
    normalise = preprocess.transforms[-1]
    assert (tuple(normalise.mean), tuple(normalise.std)) == (MEAN, STD)
    images = torch.stack([preprocess(picture(i, size)) for i, size in enumerate(SIZES)])
    assert torch.allclose(images, batch["image"], atol=1e-6, rtol=0)
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(CAPTIONS), batch["text"])
    assert equal_features(paradigm, model, Clip().load(tmp_path), batch)


def test_the_exported_config_says_how_pixels_are_prepared(tmp_path):
    paradigm, model = made(CUSTOM, mean=MEAN, std=STD)
    paradigm.export(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    written = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert written["model_cfg"] == CUSTOM
    expected = dict(mean=list(MEAN), std=list(STD), interpolation="bicubic", resize_mode="shortest")
    assert written["preprocess_cfg"] == expected


def test_building_and_exporting_leave_the_config_alone(tmp_path):
    config = copy.deepcopy(CUSTOM)
    paradigm, model = made(config)
    paradigm.export(model, tmp_path)
    assert config == CUSTOM


def test_only_open_clip_folders_are_recognised(tmp_path):
    paradigm, model = made()
    (tmp_path / "clip").mkdir()
    paradigm.export(model, tmp_path / "clip")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.safetensors").write_bytes(b"")
    (tmp_path / "folder" / "open_clip_config.json").mkdir(parents=True)
    assert Clip().recognises(tmp_path / "clip")
    others = [
        "toy",
        "folder",
        "nowhere",
        "clip/open_clip_config.json",
        "clip/open_clip_model.safetensors",
    ]
    assert not any(Clip().recognises(tmp_path / other) for other in others)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": 3}'])
def test_a_damaged_config_is_recognised_and_refused_with_the_reason(content, tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    (tmp_path / "open_clip_config.json").write_text(content)
    assert Clip().recognises(tmp_path)
    with pytest.raises(ConfigError, match="Cannot read the model") as caught:
        Clip().load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_weights_is_refused_by_name(tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Clip().load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "others"),
    [
        ("open_clip_model.safetensors", []),
        ("open_clip_pytorch_model.bin", []),
        ("open_clip_pytorch_model.pth", []),
        ("open_clip_model.safetensors", ["pytorch_model.bin", "open_clip_pytorch_model.bin"]),
        (
            "open_clip_pytorch_model.bin",
            ["model.safetensors", "pytorch_model.bin", "training_args.bin"],
        ),
        ("open_clip_pytorch_model.bin", ["optimizer.pt"]),
    ],
)
def test_the_weights_that_open_clip_takes_are_loaded(weights, others, data, tmp_path):
    """Load folders as they are published.

    Often they hold the same model in the format of another library too.
    """
    paradigm, model = made(data=data)
    paradigm.export(model, tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    for name, state in (
        (weights, model.state_dict()),
        *((o, {"foreign": torch.zeros(3)}) for o in others),
    ):
        if name.endswith(".safetensors"):
            save_file(state, tmp_path / name)
        else:
            torch.save(state, tmp_path / name)
    batch = prepared(paradigm, raw(paradigm.build_dataset("val")))
    assert equal_features(paradigm, model, open_clip.create_model(f"local-dir:{tmp_path}"), batch)
    assert equal_features(paradigm, model, Clip().load(tmp_path), batch)


@pytest.mark.parametrize("damage", ["cut short", "another model"])
def test_weights_that_do_not_fit_are_a_config_error(damage, tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    file = tmp_path / "open_clip_model.safetensors"
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        save_weights(made(changed(MODEL, vision_width=64))[1], file)
    with pytest.raises(ConfigError) as caught:
        Clip().load(tmp_path)
    assert str(tmp_path) in str(caught.value)
