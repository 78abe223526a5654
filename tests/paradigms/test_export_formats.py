"""How each export is loaded, as its model card tells it, with the card in the folder."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("open_clip")
pytest.importorskip("mmpretrain")
pytest.importorskip("transformers")
from safetensors.torch import load_file

from compt.growth.export import export_checkpoint
from compt.report.card import Card, export_folders, write_cards
from tests.paradigms import clip_models, lm_models, mae_models


def carded(paradigm, model, folder, **options):
    """Export a model with cards, and return the code of each folder's card."""
    paradigm.export(model, folder, **options)
    formats = {path: paradigm.export_format(path) for path in export_folders(folder)}
    write_cards(Card(title="t", model="chain/t", summary="s"), folder, formats)
    codes = {}
    for card in folder.rglob("README.md"):
        code = card.read_text().split("```python\n")[1].split("```")[0]
        codes[card.parent.name] = code.replace("path/to/this/folder", str(card.parent))
    return codes


def ran(code):
    scope = {}
    exec(code, scope)
    return scope


def assert_same(model, theirs):
    state = model.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in theirs.state_dict().items())


def test_open_clip_loads_the_folder_as_its_card_says(tmp_path):
    paradigm, model = clip_models.made()
    (code,) = carded(paradigm, model, tmp_path).values()
    scope = ran(code)
    assert_same(model, scope["model"])
    assert scope["tokenizer"](["a dog"]).shape == (1, 12)
    following = clip_models.Clip()
    following.follow(tmp_path)
    assert not following.notes, "a card of compt's is replaced, and not left behind"


def test_mmpretrain_and_timm_load_their_folders_as_the_cards_say(tmp_path):
    paradigm, model = mae_models.made(mae_models.classifier())
    codes = carded(paradigm, model, tmp_path)
    assert codes.keys() == {tmp_path.name, "timm"}
    assert_same(model, ran(codes[tmp_path.name])["model"])
    assert "timm.create_model" in codes["timm"]
    assert ran(codes["timm"])["model"].num_classes == 0


def test_transformers_loads_shards_as_the_card_says(tmp_path):
    paradigm, model = lm_models.made()
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    whole.mkdir(), shards.mkdir()
    carded(paradigm, model, whole)
    assert not list(whole.glob("*.index.json"))
    (code,) = carded(paradigm, model, shards, max_shard_size=40_000).values()
    files = sorted(shards.glob("model-*.safetensors"))
    assert len(files) > 1 and (shards / "model.safetensors.index.json").is_file()
    names = [name for file in files for name in load_file(file)]
    assert sorted(names) == sorted(load_file(whole / "model.safetensors"))
    scope = ran(code)
    assert_same(model, scope["model"])
    assert scope["tokenizer"]("a")["input_ids"]
    assert paradigm.recognises(shards)
    assert_same(model, copy.copy(paradigm).load(shards))


def test_every_file_of_weights_has_the_number_format_and_a_reason_for_its_size(tmp_path):
    paradigm, model = mae_models.made(mae_models.mae())
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    paradigm.export(model, source)
    following = mae_models.Mae()
    following.follow(source)
    report = export_checkpoint(source, out, following, dtype="bf16", max_shard_size=1000)
    assert report["dtype"] == "bfloat16" and 0 < report["rounding_error"] < 0.1
    timm_state = load_file(out / "timm" / "model.safetensors")
    own_state = torch.load(out / "model.pth", weights_only=True)["state_dict"]
    for state in (timm_state, own_state):
        assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    whys = sorted(note.rpartition(": ")[2] for note in report["notes"])
    assert whys == ["mmpretrain loads one checkpoint", "timm loads one file of weights"]
