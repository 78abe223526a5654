"""Folders that open_clip loads, and that each paradigm recognises as its own."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from compt_siglip import SigLip
from safetensors.torch import load_file, save_file
from siglip_models import CUSTOM, LARGER, MODEL, PUBLISHED, batch_of, build
from torch import nn

import compt
from compt.paradigms.clip import Clip

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def exported(folder: Path, model: Any = MODEL, *, kind: str = "siglip") -> tuple[Path, nn.Module]:
    """A folder with a model of a paradigm, and the model."""
    paradigm, net = build(model, kind=kind)
    (folder / kind).mkdir()
    paradigm.export(net, folder / kind)
    return folder / kind, net


def rewritten(folder: Path, **options: Any) -> None:
    """Change keys of the model config in a folder."""
    content = json.loads((folder / CONFIG).read_text())
    content["model_cfg"] |= options
    (folder / CONFIG).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "model", [MODEL, CUSTOM, PUBLISHED], ids=["own", "custom_text", "published"]
)
def test_open_clip_loads_what_is_exported(
    model: dict[str, Any], data: dict[str, Any], tmp_path: Path
) -> None:
    """Its outputs are ours, scale and bias included, and so is its tokenizer."""
    paradigm, net = build(model, data=data)
    paradigm.export(net, tmp_path)
    batch = batch_of(paradigm)
    theirs, again = (
        open_clip.create_model(f"local-dir:{tmp_path}").eval(),
        SigLip().load(tmp_path).eval(),
    )
    with torch.no_grad():
        ours = paradigm.forward(net, batch)
        for name, value in zip(
            ("image_features", "text_features", "logit_scale", "logit_bias"),
            theirs(batch["image"], batch["text"]),
            strict=True,
        ):
            assert torch.equal(ours[name], value), name
        assert all(
            torch.equal(ours[name], value) for name, value in paradigm.forward(again, batch).items()
        )
    assert ours["logit_bias"].item() not in (0, -10)
    written = json.loads((tmp_path / CONFIG).read_text())["model_cfg"]
    assert written == again.open_clip_config
    assert {"init_logit_scale", "init_logit_bias"} <= set(written)
    assert written | {"init_logit_scale": 0, "init_logit_bias": 0} == {
        **model,
        "init_logit_scale": 0,
        "init_logit_bias": 0,
    }


def test_each_paradigm_recognises_its_own_folders(tmp_path: Path) -> None:
    """And no file in them, and no others."""
    siglip, _ = exported(tmp_path)
    clip, _ = exported(tmp_path, kind="clip")
    (tmp_path / "empty").mkdir()
    for paradigm, own in ((SigLip(), siglip), (Clip(), clip)):
        others = [
            siglip,
            clip,
            own / CONFIG,
            own / WEIGHTS,
            tmp_path / "empty",
            tmp_path / "nowhere",
        ]
        assert [path for path in others if paradigm.recognises(path)] == [own]


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_compt_grow_takes_the_paradigm_of_the_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger model has a trained bias and scale where the smaller one had, else no bias."""
    folder, net = exported(tmp_path, kind=kind)
    (tmp_path / "larger.json").write_text(json.dumps(LARGER))
    arguments = [
        "grow",
        "--from",
        str(folder),
        "--to",
        str(tmp_path / "larger.json"),
        "-o",
        str(tmp_path / "grown"),
    ]
    monkeypatch.setattr(sys, "argv", ["compt", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("compt", run_name="__main__")
    assert not ended.value.code
    weights = load_file(tmp_path / "grown" / WEIGHTS)
    assert weights["visual.conv1.weight"].shape[0] == 64
    assert torch.equal(weights["logit_scale"], net.logit_scale)
    assert ("logit_bias" in weights) == (kind == "siglip")
    if kind == "siglip":
        assert torch.equal(weights["logit_bias"], net.logit_bias)


def test_a_model_without_a_bias_is_not_loaded(tmp_path: Path) -> None:
    """Neither as a model nor into one."""
    clip, _ = exported(tmp_path, kind="clip")
    for read in (SigLip().load, lambda path: SigLip().load_weights(build()[1], path)):
        with pytest.raises(compt.ConfigError, match=r"has no logit bias(.|\n)*'clip'") as caught:
            read(clip)
        assert str(clip) in str(caught.value)


def test_weights_without_a_bias_are_not_given_one(tmp_path: Path) -> None:
    """open_clip reads them with a bias of 0, whatever the config says."""
    clip, _ = exported(tmp_path, kind="clip")
    rewritten(clip, init_logit_bias=-10)
    assert open_clip.create_model(f"local-dir:{clip}").logit_bias.item() == 0
    with pytest.raises(compt.ConfigError, match="has no logit bias"):
        SigLip().load(clip)


def test_a_bias_that_began_at_zero_is_loaded(tmp_path: Path) -> None:
    """It is one like any other."""
    paradigm = SigLip()
    model = paradigm.build_model(compt.Member("a", dict(MODEL, init_logit_bias=0.0)))
    paradigm.export(model, tmp_path)
    assert SigLip().load(tmp_path).logit_bias.item() == 0


def test_a_bias_of_one_dimension_is_loaded(tmp_path: Path) -> None:
    """As published files have it."""
    folder, net = exported(tmp_path)
    state = {
        name: value[None] if name.startswith("logit") else value
        for name, value in net.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    loaded = SigLip().load(folder)
    assert loaded.logit_bias.shape == ()
    assert loaded.logit_bias.item() == net.logit_bias.item()


def test_a_damaged_folder_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Config or weights."""
    folder, _ = exported(tmp_path)
    (folder / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(compt.ConfigError, match="cannot be loaded"):
        SigLip().load(folder)
    for content in ("{", "[]", '{"model_cfg": 3}'):
        (folder / CONFIG).write_text(content)
        with pytest.raises(compt.ConfigError, match="Cannot read the model"):
            SigLip().load(folder)
