"""Train chains with ``init``.

The first member is given, as other libraries wrote it, and the second grown from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import compt
from compt import ConfigError
from compt.files import read_json
from compt.interfaces import Member


def chain(
    paradigm: dict[str, Any], small: Any, large: Any, init: Path, **more: Any
) -> dict[str, Any]:
    """A given member, and one grown from it that trains three steps."""
    return dict(
        paradigm=paradigm,
        chain=[
            dict(name="a", model=small, init=str(init), iters=0),
            dict(name="b", model=large, iters=3),
        ],
        grower=dict(type="lossless"),
        transfer=dict(type="feature_mse"),
        train_dataloader=dict(batch_size=4),
        evaluations=1,
        **more,
    )


def weights(run: Path, stage: str, file: str = "weights.safetensors") -> dict[str, torch.Tensor]:
    return load_file(run / stage / file)


def check_run(run: Path, checkpoint: dict[str, torch.Tensor]) -> None:
    """Check a run: the first member is the checkpoint, the second began as it and went on."""
    saved = weights(run, "01_a")
    assert saved and all(torch.equal(checkpoint[name], saved[name]) for name in saved)
    first, second = (read_json(run / stage / "manifest.json") for stage in ("01_a", "02_b"))
    assert (first["iters"], first["samples"], first["flops"]["total"], first["growth"]) == (
        0,
        0,
        0.0,
        None,
    )
    assert (second["iters"], second["transfer"]) == (3, "feature_mse")
    assert second["growth"]["function_preserving"] and second["growth"]["error"] < 1e-4
    assert second["metrics"]
    start, end = weights(run, "02_b", "grown.safetensors"), weights(run, "02_b")
    assert any(not torch.equal(start[name], end[name]) for name in end)


# open_clip


def clip_model(width: int, layers: int) -> dict[str, Any]:
    return dict(
        embed_dim=16,
        vision_cfg=dict(image_size=16, patch_size=8, width=width, layers=layers, head_width=16),
        text_cfg=dict(context_length=8, width=width, layers=layers, heads=width // 16),
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, Any]:
    """A clip paradigm on twelve images of noise."""
    folder = tmp_path_factory.mktemp("pairs")
    random, lines = np.random.default_rng(0), ["image,caption"]
    for i in range(12):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
        lines.append(f"{i}.png,image number {i}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    file = str(folder / "pairs.csv")
    return dict(type="clip", data=dict(type="csv", train=file, val=file))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A CLIP as an open_clip folder, and as checkpoints of open_clip's training."""
    pytest.importorskip("open_clip")
    from compt.paradigms.clip import Clip

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(3)
    paradigm = Clip()
    model = paradigm.build_model(Member("a", clip_model(16, 1)))
    (folder / "source").mkdir()
    paradigm.export(model, folder / "source")
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save(dict(epoch=2, name="run", state_dict=state, optimizer={}), folder / "epoch_2.pt")
    torch.save({**state, "module.extra": torch.ones(1)}, folder / "other.pt")
    return folder


@pytest.mark.parametrize("init", ["source", "epoch_2.pt"])
def test_a_clip_chain_starts_from_what_open_clip_wrote(clip, pairs, tmp_path, init):
    import open_clip

    run = compt.train(
        chain(pairs, clip_model(16, 1), clip_model(32, 2), clip / init), work_dir=tmp_path / "run"
    )
    check_run(run, weights(clip, "source", "open_clip_model.safetensors"))
    source, first, second = (
        open_clip.create_model_and_transforms(f"local-dir:{path}")[0].eval()
        for path in (clip / "source", run / "01_a" / "export", run / "02_b" / "export")
    )
    second.load_state_dict(weights(run, "02_b", "grown.safetensors"))
    image, text = torch.randn(2, 3, 16, 16), torch.randint(1, 99, (2, 8))
    with torch.no_grad():
        expected = source(image, text)
        for model in (first, second):
            for output, wanted in zip(model(image, text), expected, strict=True):
                torch.testing.assert_close(output, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("init", "model", "message"),
    [
        ("gone", clip_model(16, 1), "gone"),
        ("other.pt", clip_model(16, 1), "'extra' is unknown to the model"),
        ("epoch_2.pt", clip_model(16, 2), r"lacks 'visual\.transformer\.resblocks\.1"),
        ("source", clip_model(32, 1), r"\[16\] in it and \[32\] in the model"),
    ],
)
def test_another_checkpoint_is_refused_before_training(clip, pairs, tmp_path, init, model, message):
    config = chain(pairs, model, clip_model(32, 2), clip / init)
    with pytest.raises(ConfigError, match=message) as caught:
        compt.train(config, work_dir=tmp_path / "run")
    assert caught.value.where == "init of member 'a'"
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not list((tmp_path / "run").rglob("manifest.json"))


def test_a_checkpoint_of_equal_shapes_that_computes_something_else_is_refused(
    clip, pairs, tmp_path
):
    small, large = (dict(clip_model(*sizes), quick_gelu=True) for sizes in ((16, 1), (32, 2)))
    with pytest.raises(
        ConfigError, match="fits the member's shapes, but its outputs differ"
    ) as caught:
        compt.train(chain(pairs, small, large, clip / "source"), work_dir=tmp_path / "run")
    assert caught.value.where == "init of member 'a'"


# transformers

LLAMA = dict(model_type="llama", num_attention_heads=2, num_key_value_heads=1, head_dim=16)
SMALL = dict(LLAMA, hidden_size=32, intermediate_size=48, num_hidden_layers=1)
LARGE = dict(LLAMA, hidden_size=64, intermediate_size=96, num_hidden_layers=2)


@pytest.fixture
def text(tmp_path, monkeypatch) -> dict[str, Any]:
    """A causal_lm paradigm on the bytes of a short text.

    In its folder, as mmengine is slow to print long paths.
    """
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    for file in ("train.txt", "val.txt"):
        Path(file).write_text("Whom it may concern. " * 20)
    data = dict(type="text", train="train.txt", val="val.txt", cache_dir="cache")
    return dict(type="causal_lm", context=12, data=data)


def test_a_chain_of_language_models_starts_from_a_folder_of_transformers(text):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**SMALL, vocab_size=257, max_position_embeddings=12)
    AutoModelForCausalLM.from_config(config).save_pretrained(Path("source"))
    run = compt.train(chain(text, SMALL, LARGE, Path("source")), work_dir="run")
    check_run(run, weights(Path(), "source", "model.safetensors"))
    source, first, second = (
        AutoModelForCausalLM.from_pretrained(path)
        for path in (Path("source"), run / "01_a" / "export", run / "02_b" / "export")
    )
    second.load_state_dict(weights(run, "02_b", "grown.safetensors"))
    ids = torch.randint(257, (2, 12))
    with torch.no_grad():
        for model in (first, second):
            torch.testing.assert_close(model(ids).logits, source(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_folder_with_another_tokenizer_is_refused(text):
    from compt.paradigms.causal_lm import CausalLm

    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    Path("same").mkdir()
    CausalLm().export(CausalLm().build_model(Member("a", SMALL)), Path("same"))
    CausalLm().tokenizer.save(Path("bytes"))
    text["tokenizer"] = "bytes"
    compt.train(chain(text, SMALL, LARGE, Path("same")), work_dir="run")

    other = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"a": 0, "<end>": 1}, unk_token="<end>")
    )
    Path("same").rename("other")
    transformers.PreTrainedTokenizerFast(tokenizer_object=other, eos_token="<end>").save_pretrained(
        "other"
    )
    with pytest.raises(ConfigError, match="tokenizer of 'other' is not the paradigm's"):
        compt.train(chain(text, SMALL, LARGE, Path("other")), work_dir="run2")


def test_a_member_that_is_not_trained_is_measured(text):
    from compt.paradigms.causal_lm import CausalLm

    Path("source").mkdir()
    CausalLm().export(CausalLm().build_model(Member("a", SMALL)), Path("source"))
    run = compt.train(chain(text, SMALL, LARGE, Path("source")), work_dir="run")
    manifest = read_json(run / "01_a" / "manifest.json")
    assert (manifest["iters"], manifest["flops"]["total"]) == (0, 0)
    assert manifest["metrics"]["val/loss"]["value"] > 0
