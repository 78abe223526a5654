"""Read images of every source through mmpretrain's transforms and configs."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from tests.paradigms.mae_models import SIMMIM_MASK, image_folder, made, mae

# isort: split
from mmengine.registry import DATASETS

import compt
from compt import ConfigError
from compt.config import load_config
from compt.errors import DataError
from compt.interfaces import Images
from compt.paradigms.mae import Mae
from compt.paradigms.mae.data import default_pipeline
from compt.paradigms.mae.mmpretrain import scope
from compt.training.loader import SeededFetch
from tests.paradigms.conftest import KIND, SIZES, picture

CENTRE = [dict(type="Resize", scale=(32, 32)), dict(type="PackInputs")]


def of_mmpretrain(folder, pipeline, **options):
    """Return mmpretrain's data set of a folder, which loads the images itself."""
    return dict(
        type="mmpretrain.CustomDataset",
        data_root=str(folder),
        pipeline=[dict(type="LoadImageFromFile"), *pipeline],
        serialize_data=False,  # which takes time
        **options,
    )


# Sources


@pytest.mark.parametrize("train", [False, True])
def test_pixels_equal_mmpretrains_for_every_shape(data, tmp_path, train):
    """Crops and flips too, for the same random numbers."""
    paradigm, _ = made(data=data)
    ours = SeededFetch(paradigm.build_dataset("train" if train else "val"))
    for i, size in enumerate(SIZES):
        picture(i, size).save(tmp_path / f"{i}.png")
    with scope():
        config = of_mmpretrain(tmp_path, default_pipeline((32, 32), train=train), with_label=False)
        theirs = SeededFetch(DATASETS.build(config))
    for seed in range(3):
        batch, other = (fetch.__getitems__([seed, *range(8)]) for fetch in (ours, theirs))
        for mine, its in zip(batch, other):
            assert mine["inputs"].dtype is torch.uint8
            assert torch.equal(mine["inputs"], its["inputs"])


def test_samples_are_bgr_images_with_the_numbers_of_their_classes(data):
    paradigm, _ = made(data=data, test_pipeline=[dict(type="PackInputs")])
    dataset = paradigm.build_dataset("val")
    assert dataset.classes == ("bird", "cat", "dog")
    assert [int(dataset[i]["data_samples"].gt_label) for i in range(8)] == [2, 1, 2, 0, 1, 0, 2, -1]
    for i, size in enumerate(SIZES):
        assert np.array_equal(dataset[i]["inputs"].permute(1, 2, 0).flip(2), picture(i, size))
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3]["inputs"], dataset[3]["inputs"])
    assert KIND[7] == ""


def test_tables_need_no_captions(tmp_path):
    picture(0, (40, 30)).save(tmp_path / "0.png")
    (tmp_path / "images.csv").write_text("image\n0.png\n")
    paradigm, _ = made(
        data=dict(type="csv", train=str(tmp_path / "images.csv"), val=str(tmp_path / "images.csv"))
    )
    (sample,) = (paradigm.build_dataset("val")[i] for i in range(1))
    assert sample["inputs"].shape == (3, 32, 32)
    assert int(sample["data_samples"].gt_label) == -1


@pytest.mark.parametrize("labels", [True, False])
def test_a_folder_of_images_with_classes_or_without(tmp_path, labels):
    root = image_folder(tmp_path / "images", count=3)
    picture(0, (40, 30)).save(root / "loose.png")
    data = dict(type="folder", train=str(root), val=str(root), labels=labels)
    paradigm, _ = made(data=data)
    assert paradigm.splits == ("val",)
    dataset = paradigm.build_dataset("train")
    numbers = [int(dataset[i]["data_samples"].gt_label) for i in range(len(dataset))]
    assert numbers == ([-1, 0, 0, 0, 1, 1, 1] if labels else [-1] * 7)
    assert paradigm.num_samples("train") == 7
    assert Mae(data=dict(data, num_samples=99)).num_samples("train") == 99


def test_held_out_classes_are_numbered_as_the_training_images_are(tmp_path):
    train = image_folder(tmp_path / "train", ("cat", "dog", "eel"), count=1)
    val = image_folder(tmp_path / "val", ("dog", "eel", "zebra"), count=1)
    paradigm, _ = made(data=dict(type="folder", train=str(train), val=str(val)))
    dataset = paradigm.build_dataset("val")
    assert [int(dataset[i]["data_samples"].gt_label) for i in range(3)] == [1, 2, -1]
    assert dataset.left_out.parts == {"samples of a class that the training split lacks": 1}
    assert dataset.classes == ("cat", "dog", "eel")


def test_icons_are_drawn_at_the_models_size(monkeypatch):
    paradigm, _ = made(mae(size=64), data=dict(type="icons"))
    assert paradigm.splits == ("concept", "vendor")
    drawn = []
    monkeypatch.setattr(
        "compt.data.icons.source.Icons",
        lambda split, image_size, **options: drawn.append((split, image_size)) or Drawn(),
    )
    for split in ("train", "concept"):
        assert paradigm.build_dataset(split)[0]["inputs"].shape == (3, 64, 64)
    paradigm, _ = made(mae(size=64), data=dict(type="icons", image_size=48))
    paradigm.build_dataset("train")
    assert drawn == [("train", 64), ("concept", 64), ("train", 48)], "a config's own size counts"


class Drawn(Images):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return {"image": picture(index, (64, 64)), "captions": (), "label": -1}


def test_broken_images_are_counted_and_too_many_of_them_stop(tmp_path):
    root = image_folder(tmp_path / "images", count=10)
    for name in ("cat/3.png", "dog/0.png"):
        (root / name).write_bytes(b"no picture")
    data = dict(type="folder", train=str(root), val=str(root))
    paradigm, _ = made(data=dict(data, max_broken=0.1))
    dataset = paradigm.build_dataset("train")
    assert dataset.broken_count == 2
    assert dataset[3]["inputs"].shape == (3, 32, 32)
    with pytest.raises(DataError, match=r"2 of 20 samples tried cannot be read.*(\n.*)*3\.png"):
        made(data=data)[0].build_dataset("train")


PIPELINES = {
    "an unknown transform": (
        [dict(type="RandomFilp"), dict(type="PackInputs")],
        "RandomFilp(?s:.*)paradigm.pipeline",
    ),
    "an unknown argument": ([dict(type="RandomFlip", porb=1), dict(type="PackInputs")], "porb"),
    "no type": ([dict(prob=1)], "cannot be built"),
    "nothing packed": (CENTRE[:1], "ends with .*not with inputs.*(?s:.*)PackInputs"),
}


@pytest.mark.parametrize("case", PIPELINES)
def test_a_pipeline_that_cannot_be_is_named(case):
    pipeline, message = PIPELINES[case]
    paradigm, model = made(pipeline=pipeline)
    with pytest.raises(ConfigError, match=message):
        paradigm.example_batch(model, 2)


def test_data_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"'fodler'.*Did you mean 'folder'"):
        Mae(data=dict(type="fodler"))
    paradigm, _ = made()
    with pytest.raises(ConfigError, match="no data"):
        paradigm.build_dataset("train")
    with pytest.raises(ConfigError, match="not known before a member has been built"):
        Mae(data=dict(type="icons")).build_dataset("train")


def test_examples_leave_the_random_state_alone():
    paradigm, model = made(pipeline=[dict(type="Resize", scale=(56, 56)), SIMMIM_MASK, *CENTRE])
    torch.manual_seed(1), np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    paradigm.example_batch(model, 2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


# mmpretrain's data sets and configs


@pytest.fixture
def chain(tmp_path):
    """Return a chain of two on mmpretrain's CustomDataset, free to change."""
    train, val = (
        image_folder(tmp_path / split, count=8, seed=i) for i, split in enumerate(("train", "val"))
    )
    augmented = [dict(type="RandomResizedCrop", scale=32), dict(type="PackInputs")]
    return dict(
        paradigm=dict(type="mae", probe=dict(samples=16, dataset=of_mmpretrain(train, CENTRE))),
        chain=[
            dict(name="a", model=mae(16, 1), epochs=2),
            dict(name="b", model=mae(32, 2), iters=3),
        ],
        grower=dict(type="lossless"),
        transfer=dict(type="feature_mse"),
        default_scope="mmpretrain",
        train_dataloader=dict(batch_size=8, dataset=of_mmpretrain(train, augmented)),
        val_dataloader=dict(batch_size=10, dataset=of_mmpretrain(val, CENTRE)),
        evaluations=1,
    )


def test_data_sets_of_mmpretrain_are_named_in_the_loaders(chain, tmp_path):
    assert [stage.iters for stage in compt.plan(chain).stages] == [4, 3]
    folder = compt.train(chain, work_dir=tmp_path / "run")
    for stage in ("01_a", "02_b"):
        manifest = json.loads((folder / stage / "manifest.json").read_text())
        assert list(manifest["metrics"]) == ["val/loss", "val/knn", "val/linear_probe"]
        assert manifest["metrics"]["val/knn"]["value"] > 0.9
        assert manifest["main_metric"] == "val/loss"
    growth = json.loads((folder / "02_b" / "growth.json").read_text())["growth"]
    assert growth["function_preserving"]


def test_a_data_set_that_is_not_there_is_named_before_training(chain, tmp_path):
    chain["train_dataloader"]["dataset"]["data_root"] = str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        compt.train(chain, work_dir=tmp_path / "run")


BASE = """
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs512_mae.py']
paradigm = dict(type='mae')
chain = [dict(name='a', model=dict(type='mmpretrain.MAE'), iters=3)]
"""


def test_a_data_config_of_mmpretrain_is_a_base(tmp_path):
    """Accept keys that a chain does not use, but check those of the file itself."""
    (tmp_path / "chain.py").write_text(BASE + "train_dataloader = dict(batch_size=64)\n")
    config = load_config(tmp_path / "chain.py")
    loader = config.stages[0].train_dataloader
    assert (loader["batch_size"], loader["num_workers"]) == (64, 8)
    assert loader["dataset"]["type"] == "ImageNet"
    assert [step["type"] for step in loader["dataset"]["pipeline"]][1:3] == [
        "RandomResizedCrop",
        "RandomFlip",
    ]
    (tmp_path / "chain.py").write_text(BASE + "train_dataloadr = dict(batch_size=64)\n")
    with pytest.raises(ConfigError, match=r"train_dataloadr is not a key.*'train_dataloader'"):
        load_config(tmp_path / "chain.py")


def test_a_whole_config_of_mmpretrain_is_a_base_but_for_its_schedule(tmp_path):
    text = """
    _base_ = ['mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py']
    paradigm = dict(type='mae')
    chain = [dict(name='base', model={{_base_.model}}, iters=3)]
    """.replace("\n    ", "\n")
    (tmp_path / "chain.py").write_text(text)
    with pytest.raises(
        ConfigError, match=r"param_scheduler: LinearLR counts epochs \(by_epoch=True\)"
    ):
        load_config(tmp_path / "chain.py")
    fractions = "param_scheduler = [dict(type='CosineAnnealingLR', begin=0.0, end=1.0)]\n"
    (tmp_path / "chain.py").write_text(text + fractions)
    config = load_config(tmp_path / "chain.py")
    assert config.stages[0].member.model["backbone"]["type"] == "MAEViT"
    assert config.stages[0].optim_wrapper["optimizer"]["betas"] == (0.9, 0.95)
    assert "train_cfg" not in config.raw
