"""``compt grow`` on what other libraries write: open_clip and Hugging Face folders, and files of
weights alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from compt.interfaces import Member
from tests.cli.conftest import refused


def written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def grown(run, *arguments: Any) -> dict[str, Any]:
    """The JSON report of a growth that keeps the function."""
    code, text, err = run("grow", *arguments, "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report["function_preserving"], report["reason"]
    assert report["error"] < 1e-4
    return report


# open_clip


def clip_model(width: int, layers: int, heads: int = 16) -> dict[str, Any]:
    return dict(
        embed_dim=32,
        vision_cfg=dict(image_size=32, patch_size=16, width=width, layers=layers, head_width=heads),
        text_cfg=dict(
            context_length=8, vocab_size=99, width=width, layers=layers, heads=width // heads
        ),
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A small CLIP as open_clip keeps it: a folder, a training checkpoint and a state dict; and
    configs.
    """
    pytest.importorskip("open_clip")
    from compt.paradigms.clip import Clip

    folder = tmp_path_factory.mktemp("clip")
    paradigm = Clip()
    torch.manual_seed(0)
    model = paradigm.build_model(Member("s", clip_model(32, 2)))
    (folder / "source").mkdir()
    paradigm.export(model, folder / "source")
    state = model.state_dict()
    torch.save(state, folder / "plain.pt")
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save(
        dict(epoch=7, name="run", state_dict=wrapped, optimizer=dict(state={}, param_groups=[])),
        folder / "e.pt",
    )
    written(folder / "small.json", clip_model(32, 2))
    written(folder / "large.json", clip_model(64, 3))
    return folder


def features(folder: Path) -> tuple[torch.Tensor, ...]:
    """Image features, text features and logit scale of a folder that open_clip loads."""
    import open_clip

    model = open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, 32, 32, generator=generator)
    text = torch.randint(1, 99, (3, 8), generator=generator)
    with torch.no_grad():
        return model(image, text)


def same_features(one: Path, other: Path) -> None:
    for before, after in zip(features(one), features(other), strict=True):
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_an_open_clip_folder_grows_into_a_larger_one(run, clip, tmp_path):
    report = grown(
        run, "--from", clip / "source", "--to", clip / "large.json", "-o", tmp_path / "out"
    )
    assert report["grower"] == "lossless"
    assert (report["dropped"], report["out"]) == ([], str(tmp_path / "out"))
    assert {"copied", "expanded"} <= {*report["params"].values()}
    config = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["vision_cfg"]["width"] == 64
    same_features(clip / "source", tmp_path / "out")


def test_preprocessing_and_half_precision_are_carried(run, clip, tmp_path):
    source = shutil.copytree(clip / "source", tmp_path / "source")
    file = source / "open_clip_config.json"
    content = json.loads(file.read_text())
    pixels = dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear", resize_mode="squash")
    written(file, content | {"preprocess_cfg": pixels})
    weights = source / "open_clip_model.safetensors"
    save_file({name: value.half() for name, value in load_file(weights).items()}, weights)
    report = grown(run, "--from", source, "--to", clip / "large.json", "-o", tmp_path / "out")
    assert (report["dtype"], report["notes"]) == ("float16", [])
    out = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    assert out["preprocess_cfg"] == pixels
    grown_weights = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert {value.dtype for value in grown_weights.values()} == {torch.float16}


@pytest.mark.parametrize("file", ["plain.pt", "e.pt"])
def test_weights_alone_grow_where_their_model_is_named(run, clip, tmp_path, file):
    named = ["--paradigm", "clip", "--source-model", clip / "small.json"]
    grown(run, "--from", clip / file, "--to", clip / "large.json", "-o", tmp_path / "out", *named)
    same_features(clip / "source", tmp_path / "out")


def test_a_folder_may_be_held_to_a_source_model_too(run, clip, tmp_path):
    named = ["--source-model", clip / "small.json"]
    grown(
        run, "--from", clip / "source", "--to", clip / "large.json", "-o", tmp_path / "out", *named
    )
    same_features(clip / "source", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ("No installed paradigm recognises", "--paradigm", "--source-model")),
        (["--paradigm", "clip"], ("e.pt", "--source-model")),
        (["--source-model", "small.json"], ("No installed paradigm recognises", "--paradigm")),
    ],
)
def test_weights_alone_need_their_paradigm_and_model(run, clip, tmp_path, options, words):
    options = [clip / one if one.endswith(".json") else one for one in options]
    to = ["--to", clip / "large.json", "-o", tmp_path / "out"]
    refused(run("grow", "--from", clip / "e.pt", *to, *options), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["e.pt", "source"])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (clip_model(32, 3), ("lacks 'visual.transformer.resblocks.2.ln_1.weight'", "and 20 more")),
        (clip_model(48, 2), ("'visual.class_embedding' is [32] in it and [48] in the model",)),
        (clip_model(32, 1), ("resblocks.1.", "unknown to the model")),
        (
            dict(clip_model(32, 2), embed_dim=16),
            ("'visual.proj' is [32, 32] in it and [32, 16]", "text_projection"),
        ),
    ],
)
def test_another_source_model_is_refused_by_its_tensors(run, clip, tmp_path, source, model, words):
    named = ["--paradigm", "clip", "--source-model", written(tmp_path / "other.json", model)]
    to = ["--to", clip / "large.json", "-o", tmp_path / "out"]
    refused(run("grow", "--from", clip / source, *to, *named), source, "not of this model", *words)
    assert not (tmp_path / "out").exists()
