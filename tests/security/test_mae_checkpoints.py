"""Read checkpoints of mmpretrain and timm without running anything of them."""

from __future__ import annotations

import json

import pytest
import torch

from tests.paradigms.mae_models import mae, timm_args, timm_folder, timm_vit

# isort: split
from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.mae import Mae


@pytest.fixture
def folder(tmp_path):
    """An exported model of mmpretrain."""
    paradigm, folder = Mae(), tmp_path / "export"
    folder.mkdir()
    paradigm.export(paradigm.build_model(Member("a", mae())), folder)
    return folder


def refused(path, match: str) -> str:
    """Return what is said of a checkpoint that is recognised, and not read in any way."""
    paradigm = Mae()
    assert paradigm.recognises(path)
    with pytest.raises(ConfigError, match=match) as caught:
        paradigm.load(path)
    with pytest.raises(ConfigError, match=match):
        Mae().follow(path)
    if path.is_dir():
        with pytest.raises(ConfigError, match=match):
            Mae().build_model(Member("a", str(path)))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_an_export_is_read(folder):
    assert Mae().load(folder)
    assert Mae().build_model(Member("a", str(folder)))


@pytest.mark.parametrize("place", ["before", "within", "behind"])
def test_the_program_beside_weights_is_not_run(folder, trap, place):
    file = folder / "model.py"
    text = file.read_text()
    hidden = {
        "before": trap.code + text,
        "within": text.replace("model = {", f"model = {{'x': {trap.code.strip()},", 1),
        "behind": f"{text}\nimport os\n",
    }
    file.write_text(hidden[place])
    assert "line" in refused(folder, "more than literals")


def test_a_config_that_builds_on_another_is_not_followed(folder, trap):
    (folder / "base.py").write_text(trap.code + "model = dict()\n")
    (folder / "model.py").write_text("_base_ = ['base.py']\n")
    refused(folder, "no `model`")


@pytest.mark.parametrize("key", ["backbone", "neck", "head", "init_cfg", "data_preprocessor"])
def test_types_that_are_paths_to_objects_are_not_imported(folder, trap, key):
    content: dict = {}
    exec((folder / "model.py").read_text(), content)
    model = content["model"] | {key: trap.config}
    (folder / "model.py").write_text(f"model = {model!r}\n")
    assert "os.mkdir" in refused(folder, "nothing|no library here has registered")


def test_nor_are_those_of_modules_that_lie_about(folder, trap, tmp_path, monkeypatch):
    (tmp_path / "lies_about.py").write_text(trap.code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "model.py").write_text("model = dict(type='lies_about')\n")
    refused(folder, "no library here has registered")


def test_types_in_a_checkpoints_own_config_are_not_imported(folder, trap, tmp_path):
    content = torch.load(folder / "model.pth", weights_only=True)
    content["meta"]["cfg"] = f"model = {trap.config!r}\n"
    torch.save(content, file := tmp_path / "checkpoint.pth")
    refused(file, "no library here has registered")


def test_nor_are_those_of_its_transforms(folder, trap, tmp_path):
    content = torch.load(folder / "model.pth", weights_only=True)
    content["meta"]["cfg"] += f"test_pipeline = [{trap.config!r}]\n"
    torch.save(content, file := tmp_path / "checkpoint.pth")
    with pytest.raises(ConfigError, match="no library here has registered"):
        Mae().follow(file)


def test_nobody_is_trusted_on_a_checkpoints_word(folder, trap):
    model = dict(
        type="mmpretrain.HuggingFaceClassifier",
        model_name="a/b",
        pretrained=True,
        trust_remote_code=True,
    )
    (folder / "model.py").write_text(f"model = {model!r}\n")
    refused(folder, "trust_remote_code")


def test_objects_beside_weights_are_not_made(folder, trap):
    """mmengine's own checkpoints hold objects: they are passed over, and none is made."""
    content = torch.load(folder / "model.pth", weights_only=True)
    content["message_hub"] = trap.object
    torch.save(content, folder / "model.pth")
    with pytest.raises(ConfigError, match="holds objects that are no tensors"):
        Mae().load(folder)


@pytest.mark.parametrize(
    "options",
    [
        dict(checkpoint_path="evil.pth"),
        dict(pretrained=True),
        dict(pretrained_cfg=dict(file="evil.pth")),
    ],
)
def test_a_folder_of_timm_names_no_other_weights(trap, tmp_path, monkeypatch, options):
    folder = timm_folder(tmp_path / "timm", timm_vit())
    torch.save(trap.object, tmp_path / "evil.pth")
    monkeypatch.chdir(tmp_path)
    content = json.loads((folder / "config.json").read_text())
    content.setdefault("model_args", timm_args(32, 2)).update(options)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"model_args.{next(iter(options))}"):
        Mae().load(folder)
