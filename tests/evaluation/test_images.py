"""The metrics of image suites are those of each library by itself on the same export."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")
pytest.importorskip("sklearn")
open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")

from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from compt.errors import ConfigError, DataError
from compt.evaluation.finetune import FineTune
from compt.evaluation.imagefolder import ImageFolderZeroShot
from compt.evaluation.images import described, open_images, open_model
from compt.evaluation.probes import Knn, LinearProbe
from tests.evaluation import exports, made
from tests.evaluation.repaired import repair_accuracy
from tests.packages import write_package

pytestmark = pytest.mark.slow
ONE = dict(num_workers=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return made.image_folder(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return exports.clip(tmp_path_factory.mktemp("clip") / "export")


@pytest.fixture(scope="module")
def mae(tmp_path_factory) -> Path:
    return exports.mae(tmp_path_factory.mktemp("mae") / "export")


@pytest.fixture(scope="module")
def swin(tmp_path_factory) -> Path:
    return exports.swin(tmp_path_factory.mktemp("swin") / "export")


def test_zero_shot_is_that_of_open_clips_own_trainer(clip, tmp_path, monkeypatch):
    """In its evaluation of ImageNet, on a folder of six classes."""
    from types import SimpleNamespace

    from open_clip_train import zero_shot

    repair_accuracy(monkeypatch, zero_shot, as_share=False)
    root = made.image_folder(tmp_path / "six", colours={**made.COLOURS, **made.OTHERS})
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(made.PROMPTS) + "\n")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    images = ImageFolder(str(root / "val"), transform)
    names = [name.replace("_", " ") for name in images.classes]
    classifier = open_clip.build_zero_shot_classifier(
        model.eval(), tokenizer, names, [lambda c, p=p: p.format(c=c) for p in made.PROMPTS]
    )
    settings = SimpleNamespace(device="cpu", precision="fp32", batch_size=16)
    theirs = zero_shot.run(model, classifier, DataLoader(images, 16), settings)
    ours = ImageFolderZeroShot(data=root, templates=prompts, **ONE).evaluate(clip)
    values = [ours[f"six/zeroshot_top{k}"].value for k in (1, 5)]
    assert values == pytest.approx(theirs, abs=1e-6)
    assert 0 < theirs[0] < theirs[1] < 1
    assert [ours[f"six/zeroshot_top{k}"].chance for k in (1, 5)] == pytest.approx([1 / 6, 5 / 6])


def test_names_of_classes_come_from_a_file(clip, data, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("blue thing\ngreen thing\nred thing\n")
    own = ImageFolderZeroShot(data=data, **ONE).evaluate(clip)
    assert ImageFolderZeroShot(data=data, classnames=file, **ONE).evaluate(clip) == own
    file.write_text("blue thing\ngreen thing\n")
    with pytest.raises(ConfigError, match="2 names for 3 classes"):
        ImageFolderZeroShot(data=data, classnames=file)
    with pytest.raises(ConfigError, match="1000 names for 3 classes"):
        ImageFolderZeroShot(data=data, classnames="imagenet")


def test_prompts_are_those_that_are_named(clip, data, tmp_path):
    plain, openai, simple = (
        ImageFolderZeroShot(data=data, templates=templates, **ONE)
        for templates in (None, "openai", "simple")
    )
    assert (len(plain._prompts), len(openai._prompts), len(simple._prompts)) == (1, 80, 7)
    file = tmp_path / "prompts.txt"
    file.write_text("a photo\n")
    with pytest.raises(ConfigError, match="does not have one"):
        ImageFolderZeroShot(data=data, templates=file)


@pytest.mark.parametrize("kind", ["clip", "mae"])
def test_features_are_the_librarys_own(request, data, kind):
    export = request.getfixturevalue(kind)
    if kind == "clip":
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{export}")
        encode = model.eval().encode_image
        scale = lambda x: x / x.norm(dim=1, keepdim=True)  # noqa: E731
    else:
        model = timm.create_model(f"local-dir:{export / 'timm'}", pretrained=True).eval()
        config = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**config)
        encode, scale = (lambda x: model.forward_features(x)[:, 1:].mean(1)), lambda x: x
    batch, label = next(iter(DataLoader(ImageFolder(str(data / "val"), transform), 36)))
    with torch.no_grad():
        expected = scale(encode(batch))
    features, labels = described(open_model(export), open_images(data / "val"), 7, 0)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert labels.equal(label)


def test_probes_are_those_that_the_paradigm_measures_in_training(mae, data):
    from compt.paradigms.mae.probe import probe

    model = open_model(mae)
    (train, names), (test, truth) = (
        described(model, open_images(data / split), 64, 0) for split in ("train", "val")
    )
    theirs = probe(train, names, test, truth)
    ours = Knn(data=data, **ONE).evaluate(mae) | LinearProbe(data=data, **ONE).evaluate(mae)
    assert {name.partition("/")[2]: metric for name, metric in ours.items()} == theirs
    assert all(metric.chance < metric.value <= 1 for metric in ours.values())


@pytest.mark.parametrize("to_rgb", [True, False])
def test_an_export_without_a_timm_folder_is_read_as_mmpretrain_does(swin, data, tmp_path, to_rgb):
    from mmpretrain import get_model

    export = shutil.copytree(swin, tmp_path / "export")
    config = (export / "model.py").read_text()
    assert "'to_rgb': True" in config
    (export / "model.py").write_text(config.replace("'to_rgb': True", f"'to_rgb': {to_rgb}"))
    images = open_images(data / "val")
    raw = torch.stack([_bgr(image, 56) for image, _ in images])
    theirs = get_model(str(export / "model.py"), pretrained=str(export / "model.pth")).eval()
    with torch.no_grad():
        prepared = theirs.data_preprocessor({"inputs": raw, "data_samples": None})["inputs"]
        expected = theirs.extract_feat(prepared)[0].flatten(2).mean(2)
    assert Knn.recognises(export) and FineTune.recognises(export)
    features, _ = described(open_model(export), images, 7, 0)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def _bgr(image, side: int) -> torch.Tensor:
    """Resize the shorter side and crop the centre, as mmpretrain's pipeline for MAE does."""
    from torchvision.transforms.v2 import functional

    resized = functional.resize(image, [side], interpolation=functional.InterpolationMode.BICUBIC)
    return functional.pil_to_tensor(functional.center_crop(resized, [side])).flip(0)


def test_fewer_samples_are_spaced_over_the_classes(mae, data):
    from unittest.mock import patch

    seen = []
    original = np.asarray
    suite = Knn(data=data, samples=6, neighbours=1, **ONE)
    with patch.object(Knn, "classifier", lambda self, number: seen.append(number) or _Fitted(seen)):
        suite.evaluate(mae)
    assert seen[0] == 6
    assert original(seen[1]).tolist() == sorted([*made.COLOURS] * 2)


class _Fitted:
    def __init__(self, seen: list) -> None:
        self.seen = seen

    def fit(self, features, names):
        self.seen.append(names)

    def score(self, features, names) -> float:
        return 0.5


def test_a_split_with_fewer_classes_numbers_them_by_name(mae, data, tmp_path):
    partial = tmp_path / "discs"
    shutil.copytree(data, partial)
    shutil.rmtree(partial / "val" / "blue_thing")
    whole = Knn(data=data, **ONE).evaluate(mae)["discs/knn"].value
    less = Knn(data=partial, **ONE).evaluate(mae)["discs/knn"]
    assert less.chance == 0.5
    assert less.value > 0.6, whole
    tuned = FineTune(data=partial, epochs=30, lr=0.02, batch_size=36, **ONE).evaluate(mae)
    assert tuned["discs/finetune"].value > 0.6
    shutil.rmtree(partial / "train" / "red_thing")
    with pytest.raises(DataError, match="such as 'red_thing'"):
        Knn(data=partial)


@pytest.mark.parametrize("kind", ["clip", "mae", "swin"])
def test_fine_tuning_learns_and_is_repeatable(request, data, kind):
    export = request.getfixturevalue(kind)
    recipe = dict(epochs=25, warmup_epochs=2, lr=0.02, batch_size=36, **ONE)
    state = torch.get_rng_state()
    first = FineTune(data=data, **recipe).evaluate(export)["discs/finetune"]
    assert torch.get_rng_state().equal(state)
    assert first.value > 0.6 and first.chance == pytest.approx(1 / 3)
    assert FineTune(data=data, **recipe).evaluate(export)["discs/finetune"] == first


def test_the_rates_are_those_of_the_recipe(mae, data, monkeypatch):
    """Warm-up and cosine, and layer decay by timm's own groups."""
    from timm.scheduler import CosineLRScheduler

    rates = []
    update = CosineLRScheduler.step_update

    def watched(self, step, *others):
        update(self, step, *others)
        rates.append([group["lr"] for group in self.optimizer.param_groups])

    monkeypatch.setattr(CosineLRScheduler, "step_update", watched)
    recipe = dict(epochs=4, warmup_epochs=1, lr=0.01, batch_size=18, layer_decay=0.5, **ONE)
    FineTune(data=data, **recipe).evaluate(mae)
    highest = [max(groups) for groups in rates]
    base = 0.01 * 18 / 256  # two batches an epoch: 8 steps, of which 2 warm up
    expected = [0.0, base / 2] + [base / 2 * (1 + np.cos(np.pi * t / 8)) for t in range(2, 8)]
    assert highest == pytest.approx(expected)
    scales = sorted({round(rate / highest[3], 6) for rate in rates[3]}, reverse=True)
    assert scales == [0.5**n for n in range(len(scales))] and len(scales) == 4


def test_layer_decay_is_of_timms_models(clip, data):
    with pytest.raises(ConfigError, match="do not say which layer"):
        FineTune(data=data, layer_decay=0.5, epochs=1, **ONE).evaluate(clip)


def test_what_clip_benchmark_brings_does_not_keep_mmpretrain_from_being_imported(tmp_path):
    write_package(tmp_path, "pycocotools", {}, {})
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-c", "import compt.paradigms.mae"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_images_that_are_not_there_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="There is no folder"):
        Knn(data=tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        Knn(data=data, val="test")
    (tmp_path / "train" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match="empty"):
        Knn(data=tmp_path, val="train")
