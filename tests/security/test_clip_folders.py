"""Read open_clip's folders without running anything of them."""

from __future__ import annotations

import json
import os

import pytest
import torch

from tests.paradigms.clip_models import MODEL, made

# isort: split
from compt import ConfigError
from compt.paradigms.clip.models import open_tokenizer
from compt.paradigms.clip.paradigm import Clip


@pytest.fixture
def folder(tmp_path):
    """An exported model of open_clip."""
    paradigm, model = made(MODEL)
    folder = tmp_path / "export"
    folder.mkdir()
    paradigm.export(model, folder)
    return folder


def with_text_config(folder, **options) -> None:
    file = folder / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"]["text_cfg"].update(options)
    file.write_text(json.dumps(content))


def custom_tokenizer(folder, trap) -> None:
    """Put a tokenizer into a folder that needs code which lies beside it."""
    names = ["evil.EvilTokenizer", None]
    config = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": names}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(trap.code)


def test_pickled_weights_make_no_objects(folder, trap):
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": trap.object}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Clip().load(folder)


def test_nobody_is_trusted_on_a_folders_word(folder, trap):
    custom_tokenizer(folder, trap)
    arguments = {"trust_remote_code": True}
    with_text_config(folder, hf_tokenizer_name=str(folder), tokenizer_kwargs=arguments)
    for read in (Clip().load, Clip().follow):
        with pytest.raises(ConfigError, match="trust_remote_code") as caught:
            read(folder)
        assert str(folder) in str(caught.value)
    with pytest.raises(ConfigError, match="tokenizer_kwargs"):
        open_tokenizer(dict(hf_tokenizer_name=str(folder), tokenizer_kwargs=arguments), 8)


def test_nobody_is_asked_whether_to_trust_it(folder, trap, monkeypatch):
    """transformers asks on the terminal, unless it is told: a habit of saying yes is no consent."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    custom_tokenizer(folder, trap)
    with pytest.raises(Exception, match="trust_remote_code"):
        open_tokenizer(dict(hf_tokenizer_name=str(folder)), 8)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '{"model_cfg": 5}'])
def test_configs_that_are_none(folder, text):
    (folder / "open_clip_config.json").write_text(text)
    assert Clip().recognises(folder)
    with pytest.raises(ConfigError):
        Clip().load(folder)


def test_a_config_without_end_is_not_read(folder):
    (folder / "open_clip_config.json").unlink()
    os.symlink("/dev/zero", folder / "open_clip_config.json")
    assert not Clip().recognises(folder)
    Clip().follow(folder)
