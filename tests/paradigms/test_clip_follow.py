"""Carry over what an open_clip folder says beside sizes and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

open_clip = pytest.importorskip("open_clip")
from safetensors.torch import save_file

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.clip.paradigm import Clip
from tests.paradigms.clip_models import CUSTOM, MODEL, changed, made, raw
from tests.paradigms.conftest import SIZES, picture

PIXELS: dict[str, Any] = dict(
    mean=[0.5, 0.4, 0.3],
    std=[0.2, 0.25, 0.3],
    interpolation="bilinear",
    resize_mode="squash",
    fill_color=7,
)
LARGE = changed(MODEL, vision_width=64, text_width=64)


def folder_of(path: Path, model=MODEL, pixels=PIXELS, **more: Any) -> Path:
    """An open_clip folder without weights."""
    path.mkdir(exist_ok=True)
    content = {"model_cfg": model, "preprocess_cfg": pixels, **more}
    (path / "open_clip_config.json").write_text(json.dumps(content))
    return path


def followed(path: Path, **options: Any) -> Clip:
    paradigm = Clip(**options)
    paradigm.follow(path)
    return paradigm


def exported(paradigm: Clip, model: Any, out: Path) -> dict[str, Any]:
    """The config of what is exported."""
    out.mkdir()
    paradigm.export(paradigm.build_model(Member("large", model)), out)
    content: dict[str, Any] = json.loads((out / "open_clip_config.json").read_text())
    return content


@pytest.mark.parametrize("resize_mode", ["squash", "longest", "shortest"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_prepared_as_open_clip_does_for_the_folder(
    resize_mode, interpolation, data, tmp_path
):
    pixels = dict(PIXELS, resize_mode=resize_mode, interpolation=interpolation)
    paradigm = followed(folder_of(tmp_path / "small", pixels=pixels), data=data)
    paradigm.build_model(Member("a", MODEL))
    batch = paradigm.prepare(
        raw(paradigm.build_dataset("val")), generator=torch.Generator().manual_seed(0)
    )
    theirs = open_clip.image_transform(32, is_train=False, **pixels)
    images = torch.stack([theirs(picture(i, size)) for i, size in enumerate(SIZES)])
    assert torch.allclose(images, batch["image"], atol=1e-6, rtol=0)


def test_random_crops_are_interpolated_likewise(data, tmp_path):
    crops = []
    for pixels in (PIXELS, {}):
        paradigm = followed(folder_of(tmp_path / "small", pixels=pixels), data=data)
        paradigm.build_model(Member("a", MODEL))
        crops.append(paradigm.build_dataset("train").transform.transforms[0].interpolation.value)
    assert crops == ["bilinear", "bicubic"]


def test_preprocessing_is_exported_whole(tmp_path):
    pixels = dict(PIXELS, size=32, mode="RGB", note="x")
    paradigm = followed(folder_of(tmp_path / "small", pixels=pixels, hub="y"))
    content = exported(paradigm, LARGE, tmp_path / "out")
    assert (content["preprocess_cfg"], content["hub"]) == (pixels, "y")
    assert content["model_cfg"] == LARGE and paradigm.notes == ()
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    assert tuple(transform.transforms[-1].mean) == (0.5, 0.4, 0.3)


def test_a_folder_that_is_loaded_is_followed(tmp_path):
    paradigm, model = made(mean=PIXELS["mean"], resize_mode="squash")
    (tmp_path / "small").mkdir()
    paradigm.export(model, tmp_path / "small")
    reader = Clip()
    reader.load(tmp_path / "small")
    content = exported(reader, LARGE, tmp_path / "out")
    assert content["preprocess_cfg"]["resize_mode"] == "squash"
    assert content["preprocess_cfg"]["mean"] == PIXELS["mean"]


def test_the_paradigms_own_options_come_first_and_are_named(tmp_path):
    path = folder_of(tmp_path / "small")
    paradigm = followed(path, mean=(0.1, 0.1, 0.1), resize_mode="longest")
    written = exported(paradigm, LARGE, tmp_path / "out")["preprocess_cfg"]
    assert written == dict(PIXELS, mean=[0.1, 0.1, 0.1], resize_mode="longest")
    assert len(paradigm.notes) == 2
    assert "mean=(0.1, 0.1, 0.1)" in paradigm.notes[0] and "[0.5, 0.4, 0.3]" in paradigm.notes[0]


def test_a_members_own_preprocessing_is_named(tmp_path):
    paradigm = followed(folder_of(tmp_path / "small"))
    model = {"model_cfg": LARGE, "preprocess_cfg": dict(PIXELS, std=[0.9] * 3)}
    paradigm.build_model(Member("large", model))
    (note,) = paradigm.notes
    assert "'large'" in note and "[0.9, 0.9, 0.9]" in note and "(0.2, 0.25, 0.3)" in note


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (dict(resize_mode="stretch"), "no resize_mode 'stretch'"),
        (dict(interpolation="cubic"), "no interpolation 'cubic'"),
        (dict(mean=[0.5]), "three numbers"),
        (dict(std=[0.5, 0.0, 0.5]), "three numbers above 0"),
        (dict(std="small"), "three numbers"),
        (dict(mode="L"), "RGB"),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_refused(pixels, message, tmp_path):
    path = folder_of(tmp_path / "small", pixels=dict(PIXELS, **pixels))
    with pytest.raises(ConfigError, match=message) as caught:
        followed(path)
    assert "open_clip_config.json" in str(caught.value)


def test_one_number_stands_for_all_channels(tmp_path):
    path = folder_of(tmp_path / "small", pixels=dict(mean=0.5, std=[0.1, 0.2, 0.3]))
    assert followed(path).mean == (0.5, 0.5, 0.5)


def test_settings_that_a_model_leaves_out_are_the_folders(tmp_path):
    source = dict(changed(MODEL, text_pool_type="eos", text_eos_id=9), quick_gelu=True)
    paradigm = followed(folder_of(tmp_path / "small", source))
    config = exported(paradigm, LARGE, tmp_path / "out")["model_cfg"]
    assert config == dict(changed(LARGE, text_pool_type="eos", text_eos_id=9), quick_gelu=True)
    paradigm.build_model(Member("b", dict(LARGE, quick_gelu=False)))
    assert "quick_gelu=False" in paradigm.notes[0] and "True" in paradigm.notes[0]


def test_a_tower_of_another_kind_is_left_alone(tmp_path):
    source = dict(
        MODEL, vision_cfg=dict(timm_model_name="test_vit", timm_pool="token", image_size=32)
    )
    model: Any = followed(folder_of(tmp_path / "small", source)).build_model(Member("a", MODEL))
    assert "timm_pool" not in model.open_clip_config["vision_cfg"]


def test_a_tokenizer_of_transformers_is_read_from_the_folder_and_carried(tmp_path):
    pytest.importorskip("transformers")
    from compt.paradigms.causal_lm import ByteTokenizer

    keys = dict(text_hf_tokenizer_name="some/where", text_tokenizer_kwargs=dict(clean="lower"))
    path = folder_of(tmp_path / "small", changed(MODEL, **keys))
    tokenizer = ByteTokenizer().inner
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(path)
    config = exported(followed(path), LARGE, tmp_path / "out")["model_cfg"]
    assert config == changed(LARGE, **keys)
    before, after = (
        open_clip.get_tokenizer(f"local-dir:{folder}")(["A Dog"])
        for folder in (path, tmp_path / "out")
    )
    assert torch.equal(before, after) and before[0, 0] == ord("a")


def test_files_that_are_not_carried_are_named(tmp_path):
    path = folder_of(tmp_path / "small")
    (path / "README.md").write_text("a card")
    (path / "open_clip_model.safetensors").write_bytes(b"")
    (note,) = followed(path).notes
    assert "1 file" in note and "README.md" in note


def test_a_file_of_weights_says_nothing_of_pixels_and_that_is_named(tmp_path):
    torch.save(made()[1].state_dict(), tmp_path / "weights.pt")
    (note,) = followed(tmp_path / "weights.pt").notes
    assert "weights alone" in note and "weights.pt" in note


@pytest.mark.parametrize("form", ["module.", "old names", "of OpenAI", "position ids"])
def test_weights_under_old_names_are_read_as_open_clip_does(form, tmp_path):
    paradigm, source = made(CUSTOM if form == "position ids" else MODEL, seed=1)
    state = dict(source.state_dict())
    if form == "module.":
        state = {f"module.{name}": value for name, value in state.items()}
    elif form == "of OpenAI":
        state |= {"input_resolution": torch.tensor(32), "context_length": torch.tensor(12)}
    elif form == "position ids":
        state["text.transformer.embeddings.position_ids"] = torch.arange(3)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    _, target = made(MODEL if form in ("module.", "of OpenAI") else CUSTOM, seed=2)
    paradigm.load_weights(target, tmp_path / "epoch_3.pt")
    assert torch.equal(target.visual.proj, source.visual.proj)
    ours, theirs = (getattr(m, "text", m).token_embedding.weight for m in (target, source))
    assert torch.equal(ours, theirs)


def test_an_archive_of_torchscript_is_refused_with_the_reason(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(ConfigError, match=r"TorchScript(.|\n)*state_dict"):
        Clip().load_weights(made()[1], tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_the_number_format_of_weights_is_read(name, tmp_path):
    path = folder_of(tmp_path / "small")
    state = {name: value.half() for name, value in made()[1].state_dict().items()}
    (save_file if name.endswith("s") else torch.save)(state, path / name)
    assert Clip().weight_dtype(path) is Clip().weight_dtype(path / name) is torch.float16
    assert Clip().weight_dtype(tmp_path) is None
