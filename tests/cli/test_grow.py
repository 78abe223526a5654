"""``compt grow``: the grown checkpoint computes the same, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from compt.testing.toy import Toy, ToyNet
from tests.cli.conftest import refused


@pytest.fixture
def larger(tmp_path) -> Path:
    file = tmp_path / "larger.json"
    file.write_text(json.dumps(dict(width=16, depth=3)))
    return file


def same_outputs(small: ToyNet, large: ToyNet) -> bool:
    points = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    return torch.allclose(small.eval()(points), large.eval()(points), atol=1e-4)


@pytest.mark.parametrize("part", ["01_a", "01_a/export"])
def test_a_grown_checkpoint_computes_the_same(run, finished, larger, tmp_path, part):
    out = tmp_path / "out"
    code, text, err = run(
        "grow", "--from", finished / part, "--to", larger, "-o", out, "--paradigm", "toy", "--json"
    )
    assert code == 0, err
    report = json.loads(text)
    assert (report["grower"], report["function_preserving"], report["dropped"]) == (
        "lossless",
        True,
        [],
    )
    assert report["error"] < 1e-4
    small, large = Toy().load(finished / "01_a" / "export"), Toy().load(out)
    assert (large.embed.out_features, len(large.blocks)) == (16, 3)
    assert report["params"].keys() == dict(large.named_parameters()).keys()
    assert sum(report["counts"].values()) == len(report["params"]) == 24  # 2 + 3 * 6 + 2 + 2
    assert same_outputs(small, large)


def test_the_paradigm_is_found_from_the_checkpoint(run, finished, larger, tmp_path):
    code, out, err = run(
        "grow", "--from", finished / "01_a", "--to", larger, "-o", tmp_path / "out"
    )
    assert code == 0, err
    assert "keeps the function" in out
    assert (tmp_path / "out" / "toy.safetensors").is_file()


def test_growth_depends_on_grower_and_seed(run, finished, larger, tmp_path):
    def grown(name: str, *options: Any) -> dict[str, torch.Tensor]:
        code, *_ = run(
            "grow", "--from", finished / "01_a", "--to", larger, "-o", tmp_path / name, *options
        )
        assert code == 0
        return load_file(tmp_path / name / "toy.safetensors")

    one, same, other = grown("1"), grown("2"), grown("3", "--seed", 1)
    corner = grown("4", "--grower", "leading_block")
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    source = load_file(finished / "01_a" / "export" / "toy.safetensors")
    assert torch.equal(corner["embed.weight"][:8], source["embed.weight"])
    assert not same_outputs(Toy().load(finished / "01_a" / "export"), Toy().load(tmp_path / "4"))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--from", "gone", ("gone", "--from")),
        ("--from", "damaged", ("damaged",)),
        ("--grower", "lossles", ("Did you mean 'lossless'?",)),
        ("--paradigm", "tyo", ("Did you mean 'toy'?",)),
        ("--to", "gone.json", ("gone.json", "--to")),
        ("--to", "text.json", ("text.json", "--to")),
        ("--to", "list.json", ("list.json",)),
        ("--to", "misspelt.json", ("widht",)),
        ("--to", "small.json", ("shrink from 16 to 8",)),
        ("--to", "ViT-B-32", ("ViT-B-32",)),
    ],
)
def test_growth_that_cannot_be_is_refused_and_writes_nothing(
    run, finished, larger, tmp_path, option, value, words
):
    contents = {
        "text": "{",
        "list": "[1]",
        "misspelt": '{"widht": 16}',
        "small": '{"width": 8, "depth": 2}',
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "toy.safetensors").write_bytes(b"not weights")
    out = tmp_path / "out"
    given: dict[str, Any] = {
        "--from": finished / "02_b",
        "--to": larger,
        "-o": out,
        "--paradigm": "toy",
    }
    given[option] = tmp_path / value if option == "--from" or value.endswith(".json") else value
    refused(run("grow", *(part for pair in given.items() for part in pair)), *words)
    assert not out.exists() or not list(out.iterdir())


def test_a_number_format_that_cannot_hold_the_values_is_refused(run, finished, larger, tmp_path):
    toy, source = Toy(), tmp_path / "source"
    model: Any = toy.load(finished / "01_a" / "export")
    model.head.bias.data += 1e6
    source.mkdir()
    toy.export(model, source)
    command = ["grow", "--from", source, "--to", larger, "-o", tmp_path / "out", "--dtype"]
    refused(run(*command, "float16"), "float16 cannot hold", "head.bias", "--dtype bfloat16")
    assert not (tmp_path / "out").exists()
    code, text, _ = run(*command, "bfloat16")
    assert code == 0 and "written in bfloat16" in text
    assert load_file(tmp_path / "out" / "toy.safetensors")["head.bias"].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["full", "file"])
def test_growth_does_not_overwrite(run, finished, larger, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    else:
        out.write_text("mine")
    refused(run("grow", "--from", finished / "01_a", "--to", larger, "-o", out), "out")
    assert (out if kind == "file" else out / "mine.txt").read_text() == "mine"


def test_a_folder_that_nobody_reads_is_refused(run, larger, tmp_path):
    (tmp_path / "other").mkdir()
    refused(
        run("grow", "--from", tmp_path / "other", "--to", larger, "-o", tmp_path / "out"),
        "other",
        "--paradigm",
    )


def clip_model(width: int, layers: int, size: int = 32) -> dict[str, Any]:
    return dict(
        embed_dim=32,
        vision_cfg=dict(image_size=size, patch_size=16, width=width, layers=layers, head_width=16),
        text_cfg=dict(
            context_length=8, vocab_size=99, width=width, layers=layers, heads=width // 16
        ),
    )


@pytest.mark.parametrize("kind", ["json", "folder"])
def test_a_grown_open_clip_folder_computes_the_same(run, tmp_path, kind):
    open_clip = pytest.importorskip("open_clip")
    from compt.interfaces import Member
    from compt.paradigms.clip import Clip
    from compt.paradigms.clip.folder import CONFIG_FILE

    source, target, out = tmp_path / "source", tmp_path / "target", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    torch.manual_seed(0)
    clip = Clip()
    clip.export(clip.build_model(Member("s", clip_model(32, 2))), source)
    file = target / CONFIG_FILE
    file.write_text(json.dumps({"model_cfg": clip_model(64, 3)}))
    to = file if kind == "json" else target
    code, text, err = run("grow", "--from", source, "--to", to, "-o", out, "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report["function_preserving"], report["reason"]
    small, large = (
        open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()
        for folder in (source, out)
    )
    assert large.transformer.width == 64
    image, text = torch.randn(3, 3, 32, 32), torch.randint(1, 99, (3, 8))
    with torch.no_grad():
        for before, after in zip(small(image, text), large(image, text)):
            torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_an_open_clip_target_with_another_input_is_refused(run, tmp_path):
    pytest.importorskip("open_clip")
    from compt.interfaces import Member
    from compt.paradigms.clip import Clip

    clip = Clip()
    clip.export(clip.build_model(Member("s", clip_model(32, 1))), tmp_path)
    to = tmp_path / "to.json"
    to.write_text(json.dumps(clip_model(64, 1, size=64)))
    refused(run("grow", "--from", tmp_path, "--to", to, "-o", tmp_path / "out"), "image size")
