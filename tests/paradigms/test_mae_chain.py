"""Run MAE chains from timm's weights to timm's, and with other algorithms by config alone."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.paradigms.mae_models import (
    SIMMIM_PIPELINE,
    classifier,
    image_folder,
    made,
    mae,
    normalised,
    prepared,
    raw,
    simmim,
    timm_args,
    timm_folder,
    timm_vit,
    vit,
)

# isort: split
import mmpretrain
import timm

import compt
from compt import ConfigError
from compt.cli import main
from compt.growth.convert import grow_checkpoint
from compt.paradigms.mae import Mae
from compt.weights import save_weights


def chain_of(data, *members, **options) -> dict:
    """A chain that trains in seconds."""
    return dict(
        paradigm=dict(type="mae", data=data, probe=dict(samples=240), **options),
        chain=[dict(name=name, model=model, iters=3, **more) for name, model, more in members],
        grower=dict(type="lossless"),
        transfer=dict(type="feature_mse"),
        train_dataloader=dict(batch_size=8),
        checkpoint=dict(interval=2),
        evaluations=1,
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("pictures")
    train, val = (
        image_folder(root / split, count=8, seed=i) for i, split in enumerate(("train", "val"))
    )
    return dict(type="folder", train=str(train), val=str(val))


def manifests(folder) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/manifest.json"))]


@pytest.mark.filterwarnings("ignore:.*filled the backbone")
def test_a_chain_from_timms_weights_ends_in_timms(few_icons, tmp_path, capsys):
    """Take timm's encoder and a fresh decoder, grow them, and train the second member."""
    theirs = timm_vit()
    timm_folder(tmp_path / "hub", theirs)
    first = dict(init=str(tmp_path / "hub"))
    config = chain_of(dict(type="icons"), ("a", mae(32, 2), first), ("b", mae(48, 3, 32, 2), {}))
    config["chain"][0]["iters"] = 0
    folder = compt.train(config, work_dir=tmp_path / "run")
    untrained, last = manifests(folder)
    assert (untrained["iters"], last["iters"]) == (0, 3)
    assert list(last["metrics"])[:3] == ["concept/loss", "concept/knn", "concept/linear_probe"]
    assert last["growth"]["function_preserving"], last["growth"]["reason"]
    images = normalised(raw()["inputs"])
    encoders = [
        timm.create_model(f"local-dir:{folder / s / 'export/timm'}", pretrained=True)
        for s in ("01_a", "02_b")
    ]
    with torch.no_grad():
        assert torch.equal(
            encoders[0].eval().forward_features(images), theirs.forward_features(images)
        )
    assert (encoders[1].embed_dim, len(encoders[1].blocks)) == (48, 3)
    export = folder / "02_b" / "export"
    whole = mmpretrain.get_model(str(export / "model.py"), pretrained=str(export / "model.pth"))
    trained = load_file(folder / "02_b" / "weights.safetensors")
    assert all(torch.equal(value, trained[name]) for name, value in whole.state_dict().items())
    grown = load_file(folder / "02_b" / "grown.safetensors")
    moved = {name for name, value in trained.items() if not torch.equal(value, grown[name])}
    assert trained.keys() - moved == {"backbone.pos_embed", "neck.decoder_pos_embed"}
    assert main(["report", str(folder)]) == 0
    assert "concept/loss" in capsys.readouterr().out


def test_simmim_trains_as_a_chain_by_config_alone(pictures, tmp_path):
    """Its masks come from its own transform, in the pipeline."""
    pipelines = dict(pipeline=SIMMIM_PIPELINE, test_pipeline=SIMMIM_PIPELINE)
    config = chain_of(pictures, ("a", simmim(8), {}), ("b", simmim(16), {}), **pipelines)
    assert compt.plan(config).stages[1].teacher_flops > 0
    folder = compt.train(config, work_dir=tmp_path / "run")
    for manifest in manifests(folder):
        assert list(manifest["metrics"]) == ["val/loss", "val/knn", "val/linear_probe"]
    assert manifests(folder)[1]["growth"]["function_preserving"]
    assert manifests(folder)[1]["transfer"] == "feature_mse"
    export = folder / "02_b" / "export"
    theirs = mmpretrain.get_model(str(export / "model.py"), pretrained=str(export / "model.pth"))
    assert type(theirs).__name__ == "SimMIM"
    assert theirs.backbone.embed_dims == 16


def test_a_classifier_is_fine_tuned_from_an_autoencoder(pictures, tmp_path):
    paradigm, source = made(mae(32, 1))
    paradigm.export(source, tmp_path / "mae")
    model = classifier(32, 1, classes=2, out_type="avg_featmap", final_norm=False)
    config = chain_of(pictures, ("a", model, dict(init=str(tmp_path / "mae"))))
    config["chain"][0]["iters"] = 20
    with pytest.warns(UserWarning, match="filled the backbone"):
        folder = compt.train(config, work_dir=tmp_path / "run")
    (manifest,) = manifests(folder)
    assert manifest["main_metric"] == "val/accuracy"
    assert manifest["metrics"]["val/accuracy"] == dict(
        value=1.0, chance=0.5, higher_is_better=True, unit="share"
    )


def test_a_checkpoint_with_other_heads_is_refused_before_training(pictures, tmp_path):
    paradigm, source = made(mae(32, 1, arch=dict(vit(32, 1)["arch"], num_heads=4)))
    paradigm.export(source, tmp_path / "mae")
    for path in (tmp_path / "mae", tmp_path / "mae" / "timm"):
        config = chain_of(pictures, ("a", mae(32, 1), dict(init=str(path))))
        with pytest.raises(
            ConfigError, match=r"has 4 heads in place of 2(.*\n)*.*init of member 'a'"
        ):
            compt.train(config, work_dir=tmp_path / "runs" / path.name)


def test_a_resumed_stage_ends_in_the_same_bytes(pictures, tmp_path, monkeypatch):
    """Stop after three of five iterations, with a checkpoint of the second.

    Crops and masks are the same.
    """
    config = chain_of(pictures, ("a", mae(16, 1), {}))
    config["chain"][0]["iters"] = 5
    whole = compt.train(config, work_dir=tmp_path / "whole")
    steps = []

    def stop(self, model):
        steps.append(model)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Mae, "after_step", stop)
        with pytest.raises(KeyboardInterrupt):
            compt.train(config, work_dir=tmp_path / "broken")
    assert (tmp_path / "broken" / "01_a" / "checkpoints" / "iter_00000002.pt").is_file()
    torch.manual_seed(1)
    broken = compt.train(config, work_dir=tmp_path / "broken", resume=True)
    weights = [(folder / "01_a" / "weights.safetensors").read_bytes() for folder in (whole, broken)]
    assert weights[0] == weights[1]
    assert manifests(whole)[0]["metrics"] == manifests(broken)[0]["metrics"]


# compt grow


def written(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def test_a_folder_of_mmpretrain_is_grown_into_a_larger_one(tmp_path):
    paradigm, small = made(mae(32, 1))
    paradigm.export(small, tmp_path / "small")
    report = grow_checkpoint(
        tmp_path / "small", written(tmp_path / "large.json", mae(80, 3, 48, 2)), tmp_path / "large"
    )
    assert report["function_preserving"], report["reason"]
    out = tmp_path / "large"
    large = mmpretrain.get_model(str(out / "model.py"), pretrained=str(out / "model.pth"))
    assert (large.backbone.embed_dims, large.neck.decoder_embed.out_features) == (80, 48)
    losses = [
        paradigm.forward(m, prepared(paradigm, raw()))["loss"].item()
        for m in (small, Mae().load(out))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert timm.create_model(f"local-dir:{out / 'timm'}", pretrained=True).embed_dim == 80


def test_a_folder_of_timm_is_grown_into_a_larger_one(tmp_path):
    small = timm_vit(num_classes=7)
    config = json.loads((timm_folder(tmp_path / "small", small) / "config.json").read_text())
    config |= dict(model_args=timm_args(80, 3))
    report = grow_checkpoint(
        tmp_path / "small", written(tmp_path / "large.json", config), tmp_path / "large"
    )
    assert report["function_preserving"], report["reason"]
    assert report["error"] < 1e-4
    large = timm.create_model(f"local-dir:{tmp_path / 'large'}", pretrained=True).eval()
    images = normalised(raw()["inputs"])
    with torch.no_grad():
        assert torch.allclose(small(images), large(images), atol=1e-4)
    assert list(large.pretrained_cfg["mean"]) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("library", ["mmpretrain", "timm"])
def test_weights_alone_are_grown_where_their_model_is_told(tmp_path, library):
    if library == "timm":
        save_file(timm_vit().state_dict(), tmp_path / "small.safetensors")
        models = [
            dict(architecture="vit_base_patch16_224", model_args=timm_args(*s), num_classes=0)
            for s in ((32, 2), (48, 2))
        ]
    else:
        save_weights(made(mae(32, 1))[1], tmp_path / "small.safetensors")
        models = [mae(32, 1), mae(48, 2)]
    source, target = (written(tmp_path / f"{i}.json", model) for i, model in enumerate(models))
    options = dict(paradigm="mae", source_model=source)
    report = grow_checkpoint(tmp_path / "small.safetensors", target, tmp_path / "out", **options)
    assert report["function_preserving"], report["reason"]
    assert Mae().recognises(tmp_path / "out")


def test_another_image_size_cannot_be_grown_into(tmp_path):
    paradigm, small = made(mae(32, 1))
    paradigm.export(small, tmp_path / "small")
    target = written(tmp_path / "large.json", mae(64, 1, size=64))
    with pytest.raises(ConfigError, match=r"image size \(64, 64\)"):
        grow_checkpoint(tmp_path / "small", target, tmp_path / "out")
    assert not (tmp_path / "out").exists()
