"""Hold MAE to the shipped contract, to mmpretrain's own outputs and to masks drawn once."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map_only

from compt.errors import DataError
from tests.paradigms.mae_models import (
    MOCO_PIPELINE,
    PATCHES,
    SIMMIM_PIPELINE,
    classifier,
    made,
    mae,
    moco,
    normalised,
    prepared,
    raw,
    simmim,
    theirs,
    vit,
)

# isort: split
from mmpretrain.models import MAEViT

from compt.paradigms.mae.data import black_sample
from compt.paradigms.mae.masks import give_masks
from compt.paradigms.mae.mmpretrain import image_size
from compt.testing import ParadigmContract


class TestMaeOnIcons(ParadigmContract):
    paradigm = dict(type="mae", data=dict(type="icons", samples=400), probe=dict(samples=120))
    model = mae()

    @pytest.fixture(autouse=True)
    def _few(self, few_icons):
        """Measure a hundred held-out icons, not all."""


class _OnPictures(ParadigmContract):
    options: dict = {}

    @pytest.fixture(autouse=True)
    def _on_data(self, data):
        self.paradigm = dict(type="mae", data=data, **self.options)


class TestMaeOnATable(_OnPictures):
    model = mae(48, 1, 32, 2, layer_cfgs=dict(layer_scale_init_value=0.1))


class TestClassifier(_OnPictures):
    model = classifier()

    @pytest.fixture(autouse=True)
    def _all_labelled(self, _on_data, data):
        lines = Path(data["train"]).read_text().splitlines()
        table = Path(data["train"]).with_name("labelled.csv")
        table.write_text("\n".join(line for line in lines if not line.endswith(",")) + "\n")
        self.paradigm["data"] = {**data, "train": str(table)}


def test_a_classifier_is_told_of_training_images_without_a_label(data):
    paradigm, model = made(classifier())
    with pytest.raises(DataError, match="a training image has none"):
        paradigm.forward(model, prepared(paradigm, raw(2, labels=[1, -1])))


def test_a_classifier_learns_from_scores_where_there_are_scores():
    """As mmpretrain's heads do, also of an image whose label is unknown."""
    paradigm, model = made(classifier())
    batch = prepared(paradigm, raw(2, labels=[1, -1]))
    for sample in batch["data_samples"]:
        sample.set_gt_score(torch.full((model.head.num_classes,), 1 / model.head.num_classes))
    assert paradigm.forward(model, batch)["loss"].isfinite()


def test_labels_on_the_meta_device_are_not_looked_at():
    paradigm, model = made(classifier())
    batch = paradigm.example_batch(model.to("meta"), 2)
    assert paradigm.forward(model, batch)["loss"].is_meta


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    ("model", "pipeline"),
    [
        (mae(), None),
        (classifier(), None),
        (moco(), MOCO_PIPELINE),
        (simmim(), SIMMIM_PIPELINE),
    ],
)
def test_an_example_batch_is_shaped_like_one_that_was_read(model, pipeline, batch_size):
    paradigm, built = made(model, pipeline=pipeline)
    size = image_size(built)
    samples = [black_sample(size, paradigm._pipeline(train=True, size=size))] * batch_size
    read = paradigm.prepare(paradigm.collate(samples), generator=torch.Generator())
    example = paradigm.example_batch(built, batch_size)
    assert example.keys() == read.keys()
    shapes = tree_map_only(torch.Tensor, lambda tensor: tensor.shape, [example, read])
    assert shapes[0]["inputs"] == shapes[1]["inputs"]
    assert shapes[0].get("noise") == shapes[1].get("noise")
    assert len(example["data_samples"]) == len(read["data_samples"]) == batch_size


class TestSimMim(_OnPictures):
    model = simmim()
    options = dict(pipeline=SIMMIM_PIPELINE, test_pipeline=SIMMIM_PIPELINE)


# Equal to mmpretrain


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ratio", [0.75, 0.6, 0.31])
def test_loss_tokens_and_gradients_equal_mmpretrains(training, ratio):
    """Bit for bit, with the mask that mmpretrain draws from the same seed."""
    paradigm, model = made(mae(mask_ratio=ratio))
    other = theirs(model)
    model.train(training), other.train(training)
    batch = prepared(paradigm, raw(), seed=7)
    outputs = paradigm.forward(model, batch)
    torch.manual_seed(7)
    losses = other(batch["inputs"], batch["data_samples"], mode="loss")
    assert set(losses) == {"loss"} == set(paradigm.loss(outputs, batch))
    assert torch.equal(outputs["loss"], losses["loss"])
    torch.manual_seed(7)
    tokens, mask, _ = other.backbone(batch["inputs"])
    assert torch.equal(outputs["tokens"], tokens)
    assert torch.equal(outputs["pooled"], tokens[:, 1:].mean(1))
    assert mask.sum().item() == 4 * (PATCHES - int(PATCHES * (1 - ratio)))
    outputs["loss"].backward(), losses["loss"].backward()
    for (name, own), twin in zip(model.named_parameters(), other.parameters()):
        assert own.grad is None if twin.grad is None else torch.equal(own.grad, twin.grad), name


def test_pixels_are_prepared_as_mmpretrain_does(data):
    paradigm, model = made(data=data)
    dataset = paradigm.build_dataset("val")
    batch = paradigm.collate([dataset[i] for i in range(8)])
    ours = prepared(paradigm, batch)["inputs"]
    assert torch.equal(ours, theirs(model).data_preprocessor(copy.deepcopy(batch), True)["inputs"])
    assert torch.equal(ours, normalised(batch["inputs"].flip(1)))


def test_members_may_bring_their_own_preprocessing():
    own = dict(
        type="SelfSupDataPreprocessor", mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0], to_rgb=False
    )
    paradigm, _ = made(dict(mae(), data_preprocessor=own))
    batch = raw()
    mean, std = (torch.tensor(own[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.equal(prepared(paradigm, batch)["inputs"], (batch["inputs"].float() - mean) / std)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1 / 3, 0.6, 0.75, 0.999, 1.0])
@pytest.mark.parametrize("patches", [1, 9, 16])
def test_masking_equals_mmpretrains_for_any_noise(ratio, patches):
    backbone = MAEViT(arch=vit()["arch"], img_size=32, patch_size=8)
    x = torch.randn(3, patches, 5, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    expected = backbone.random_masking(x, ratio)
    give_masks(backbone)
    backbone.noise = torch.rand(3, patches, generator=torch.Generator().manual_seed(3))
    actual = backbone.random_masking(x, ratio)
    assert [t.dtype for t in actual] == [t.dtype for t in expected]
    assert all(torch.equal(a, b) for a, b in zip(actual, expected))


def test_without_noise_a_model_masks_as_mmpretrains():
    """What is exported, or used outside of training, is not bound to a paradigm's masks."""
    paradigm, model = made()
    paradigm.forward(model, prepared(paradigm, raw()))
    images = normalised(raw()["inputs"])
    outputs = []
    for owner in (model, theirs(model)):
        torch.manual_seed(5)
        outputs.append(owner.backbone(images))
    assert all(torch.equal(a, b) for a, b in zip(*outputs))


# Masks


def test_masks_come_from_the_generator_alone():
    paradigm, _ = made()
    torch.manual_seed(0)
    noise = prepared(paradigm, raw(), seed=3)["noise"]
    torch.manual_seed(1)
    same, other = (prepared(paradigm, raw(), seed=seed)["noise"] for seed in (3, 4))
    assert noise.shape == (4, PATCHES)
    assert torch.equal(noise, same)
    assert not torch.equal(noise, other)
    assert not torch.equal(noise[0], noise[1]), "every image has a mask of its own"


def test_the_noise_is_taken_away_even_after_an_error():
    paradigm, model = made()
    batch = prepared(paradigm, raw())
    with pytest.raises(RuntimeError):
        paradigm.forward(model, {**batch, "inputs": batch["inputs"][:, :2]})
    assert model.backbone.noise is None
    assert not model.backbone._forward_hooks


# A teacher needs no decoder


def test_a_teacher_runs_its_encoder_alone():
    paradigm, model = made()
    batch = prepared(paradigm, raw())
    calls = []
    model.neck.register_forward_hook(lambda *_: calls.append(1))
    for needs in ({"tokens"}, {"pooled"}, {"tokens", "pooled"}, set()):
        actual = paradigm.teacher_forward(model, batch, frozenset(needs))
        assert not calls
    outputs = paradigm.forward(model, batch)
    assert set(actual) == {"tokens", "pooled"}
    assert all(torch.equal(actual[key], outputs[key]) for key in actual)
    assert "loss" in paradigm.teacher_forward(model, batch, frozenset({"loss"}))
    assert len(calls) == 2


def test_other_algorithms_teach_with_all_they_have():
    paradigm, model = made(simmim(), pipeline=SIMMIM_PIPELINE)
    batch = paradigm.example_batch(model, 2)
    actual, outputs = (
        paradigm.teacher_forward(model, batch, frozenset({"tokens"})),
        paradigm.forward(model, batch),
    )
    assert all(torch.equal(actual[key], outputs[key]) for key in outputs)
    assert outputs["tokens"].shape == (2, 49, 16)
