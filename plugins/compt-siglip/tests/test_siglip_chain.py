"""Chains in which scale and bias are trained, handed on and grown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compt_siglip import SigLip
from safetensors.torch import load_file, save_file
from siglip_models import LARGER, MODEL, batch_of, build

import compt


def chain(data: dict[str, Any], **first: Any) -> dict[str, Any]:
    """Two members, a few iterations each."""
    return dict(
        paradigm=dict(type="siglip", data=data),
        chain=[
            dict(name="a", model=MODEL, **{"iters": 4, **first}),
            dict(name="b", model=LARGER, iters=3),
        ],
        grower=dict(type="lossless"),
        transfer=dict(type="feature_mse", weight=1.0),
        train_dataloader=dict(batch_size=4),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3)),
        evaluations=1,
    )


def read(run: Path, stage: str) -> dict[str, Any]:
    """The manifest of a stage."""
    return json.loads((run / stage / "manifest.json").read_text())


@pytest.fixture(scope="module")
def run(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain."""
    return compt.train(chain(data), work_dir=tmp_path_factory.mktemp("runs") / "run")


def test_scale_and_bias_are_trained_and_handed_on(run: Path) -> None:
    """They move in each stage, and the second stage starts with what the first one ended with."""
    first, grown, second = (
        load_file(run / file)
        for file in (
            "01_a/weights.safetensors",
            "02_b/grown.safetensors",
            "02_b/weights.safetensors",
        )
    )
    fresh = {"logit_bias": -10.0, "logit_scale": torch.tensor(10.0).log().item()}
    for name, begin in fresh.items():
        assert 0 < abs(first[name].item() - begin) < 0.1, name
        assert torch.equal(first[name], grown[name]), name
        assert 0 < abs(second[name].item() - first[name].item()) < 0.1, name


def test_the_larger_model_starts_as_the_smaller_one_ended(run: Path, data: dict[str, Any]) -> None:
    """All outputs and the loss on real data are the same, and the report says so."""
    growth = read(run, "02_b")["growth"]
    assert growth["function_preserving"], growth["reason"]
    assert growth["params"]["logit_bias"] == growth["params"]["logit_scale"] == "copied"
    outputs_of_both = []
    for model, file in ((MODEL, "01_a/weights.safetensors"), (LARGER, "02_b/grown.safetensors")):
        paradigm, net = build(model, data=data)
        paradigm.load_weights(net, run / file)
        batch = batch_of(paradigm)
        with torch.no_grad():
            outputs = paradigm.forward(net, batch)
            outputs_of_both.append({**outputs, **paradigm.loss(outputs, batch)})
    small, large = outputs_of_both
    for name in small:
        assert torch.allclose(small[name], large[name], rtol=1e-5, atol=1e-6), name


def test_features_are_learnt_from_the_smaller_model(run: Path) -> None:
    """Of transfer and task, both are in the log, and the metrics in the manifest."""
    manifest = read(run, "02_b")
    assert manifest["transfer"] == "feature_mse"
    assert "zeroshot_top1" in json.dumps(manifest["metrics"])
    logs = "".join(
        path.read_text() for path in (run / "02_b").rglob("*.json") if path.name != "manifest.json"
    )
    assert "task/sigmoid" in logs
    assert "transfer/feature_mse" in logs


@pytest.mark.parametrize("start", ["export", "weights.safetensors"])
def test_a_chain_starts_from_a_siglip(
    start: str, run: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    """All weights of an open_clip folder or file are taken over, bias and scale too."""
    config = chain(data, init=str(run / "01_a" / start), iters=0)
    other = compt.train({**config, "chain": config["chain"][:1]}, work_dir=tmp_path / "run")
    first, second = (load_file(folder / "01_a" / "weights.safetensors") for folder in (run, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("start", ["export", "relabelled", "file"])
def test_a_chain_does_not_start_from_a_clip(
    start: str, data: dict[str, Any], tmp_path: Path
) -> None:
    """Its towers would fit, but it has no bias, so nothing is trained."""
    clip, net = build(kind="clip", data=data)
    clip.export(net, tmp_path)
    path = tmp_path
    if start == "relabelled":
        siglip, model = build(data=data)
        siglip.export(model, tmp_path)
        save_file(net.state_dict(), tmp_path / "open_clip_model.safetensors")
    if start == "file":
        path = tmp_path / "clip.safetensors"
        save_file(net.state_dict(), path)
    with pytest.raises(compt.ConfigError, match=r"logit.bias") as caught:
        compt.train(chain(data, init=str(path), iters=0), work_dir=tmp_path / "run")
    assert "member 'a'" in str(caught.value)
    assert not (tmp_path / "run" / "01_a" / "weights.safetensors").exists()


def test_the_towers_of_a_clip_folder_can_be_used(tmp_path: Path) -> None:
    """A folder as ``model`` gives sizes, not weights, so the model is new and has a bias."""
    clip, net = build(kind="clip")
    clip.export(net, tmp_path)
    model = SigLip().build_model(compt.Member("a", str(tmp_path)))
    assert model.logit_bias.item() == -10
