"""Work out metrics of MAE by hand, and match classes by name."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from tests.paradigms.mae_models import classifier, image_folder, made, mae, prepared

# isort: split
from compt.paradigms.mae.data import ImageDataset
from compt.paradigms.mae.probe import accuracy, labelled, probe

CLASSES = ("cat", "dog", "eel")
"""In the order of their brightness."""


def batches(paradigm, split="val", sizes=(5, 3)):
    dataset = paradigm.build_dataset(split)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [[dataset[i] for i in range(start, start + size)] for start, size in zip(starts, sizes)]
    return [prepared(paradigm, paradigm.collate(chunk), seed=i) for i, chunk in enumerate(parts)]


@torch.no_grad()
def measured(paradigm, model, given):
    return paradigm.metrics(model, "val", given)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Write a folder of cats, dogs and eels in ``train``.

    In ``val`` the cats, dark as they are, are called zebras.
    """
    root = tmp_path_factory.mktemp("folders")
    for seed, split in enumerate(("train", "val")):
        image_folder(root / split, CLASSES, count=4 if split == "val" else 10, seed=seed)
    (root / "val" / "cat").rename(root / "val" / "zebra")
    return dict(type="folder", train=str(root / "train"), val=str(root / "val"))


# The probes


def test_separable_features_are_told_apart():
    label = torch.arange(60) % 3
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    features = centres[label] + 0.01 * noise
    metrics = probe(features, label, features[:30] + 0.01, label[:30])
    assert list(metrics) == ["knn", "linear_probe"]
    assert [metrics[name].value for name in metrics] == [1.0, 1.0]
    assert all(
        metric.chance == pytest.approx(1 / 3) and metric.higher_is_better
        for metric in metrics.values()
    )
    assert [
        metric.value for metric in probe(features, label, features, (label + 1) % 3).values()
    ] == [0.0, 0.0]


def test_chance_is_the_share_of_the_most_frequent_class():
    label = torch.tensor([0, 0, 0, 1])
    assert probe(torch.eye(4), label, torch.eye(4), label)["knn"].chance == 0.75


def test_neighbours_are_those_in_direction_and_near_ones_count_more():
    train = torch.tensor([[9.0, 0.1], *[[0.0, 1.0]] * 6, [-1.0, 0.0]])
    label = torch.tensor([0, *[1] * 6, 1])
    metrics = probe(train, label, torch.tensor([[0.1, 0.0], [0.0, 0.2]]), torch.tensor([0, 1]))
    assert metrics["knn"].value == 1.0


def test_a_linear_probe_does_not_care_about_scales():
    """What tells the classes is a millionth of the rest."""
    label = torch.arange(40) % 2
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 1e3
    features[:, 0] = 1e-3 * label
    assert probe(features, label, features, label)["linear_probe"].value == 1.0


def test_one_class_is_nothing_to_tell_apart():
    assert probe(torch.eye(3), torch.zeros(3), torch.eye(3), torch.tensor([0, 0, 1])) == {}


class _Labels(list):
    """A source of small images with these labels."""

    def __getitem__(self, index):
        from PIL import Image

        return {"image": Image.new("RGB", (4, 4)), "label": super().__getitem__(index)}


@pytest.mark.parametrize(
    ("labels", "samples", "found"),
    [
        ([0, 1, 2, 0, 1, 2, 0, 1, 2], 3, [0, 3, 6]),
        ([0] * 9, 5, [0, 2, 4, 6, 8]),
        ([*[-1] * 50, *[1] * 50], 10, [50, 52, 60, 62, 70, 72, 80, 82, 90, 92]),
        ([0, -1, 2, -1, 1], 9, [0, 2, 4]),
        ([-1, 1, -1, -1, 1, -1, -1, -1], 2, [1, 4]),
        ([-1, -1], 5, []),
        ([1], 5, [0]),
        ([-1, 1], 1, [1]),
        ([], 5, []),
        ([0, 1], 0, []),
    ],
)
def test_labelled_samples_are_found_wherever_they_are(labels, samples, found):
    dataset = ImageDataset(_Labels(labels), [dict(type="PackInputs")])
    assert labelled(dataset, samples).indices == found


# The loss


@pytest.mark.parametrize("sizes", [(5, 3), (8,), (1, 7), (3, 3, 2)])
def test_the_loss_is_the_mean_over_samples_whatever_the_batches(data, sizes):
    paradigm, model = made(data=data, probe=None)
    held_out = batches(paradigm, sizes=sizes)
    single = []
    for batch in held_out:
        for i in range(len(batch["inputs"])):
            alone = {key: value[i : i + 1] for key, value in batch.items()}
            single.append(paradigm.forward(model, alone)["loss"].item())
    metrics = measured(paradigm, model, held_out)
    assert list(metrics) == ["loss"]
    assert metrics["loss"].value == pytest.approx(sum(single) / 8, rel=1e-6)
    assert not metrics["loss"].higher_is_better and metrics["loss"].chance is None


def test_without_probes_no_whole_image_is_looked_at(data):
    paradigm, model = made(data=data, probe=None)
    model.extract_feat = None
    assert list(measured(paradigm, model, batches(paradigm))) == ["loss"]


# Labels


def test_classes_are_matched_by_name_and_unknown_ones_left_out(folders):
    """Match classes by name.

    Numbered by their own split, dogs would be cats and eels dogs; zebras are no class of the
    training images.
    """
    paradigm, model = made(data=folders)
    metrics = measured(paradigm, model, batches(paradigm, sizes=(7, 5)))
    assert list(metrics) == ["loss", "knn", "linear_probe"]
    assert [metrics[name].value for name in ("knn", "linear_probe")] == [1.0, 1.0]
    assert metrics["knn"].chance == 0.5
    assert measured(paradigm, model, batches(paradigm, sizes=(7, 5))) == metrics


def test_without_labels_there_is_a_loss_alone(folders):
    paradigm, model = made(data=dict(folders, labels=False))
    assert list(measured(paradigm, model, batches(paradigm))) == ["loss"]


def test_images_without_a_class_count_for_the_loss_alone(folders, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(folders[split], tmp_path / split)
    for i in range(4):  # dark as cats, and first in the list
        (tmp_path / "val" / "zebra" / f"{i}.png").rename(tmp_path / "val" / f"{i}.png")
    paradigm, model = made(
        data=dict(folders, train=str(tmp_path / "train"), val=str(tmp_path / "val"))
    )
    held_out = batches(paradigm, sizes=(6, 6))
    metrics = measured(paradigm, model, held_out)
    assert (metrics["knn"].value, metrics["knn"].chance) == (1.0, 0.5)
    losses = torch.stack([paradigm.forward(model, batch)["loss"] for batch in held_out])
    assert metrics["loss"].value == pytest.approx(losses.mean().item(), rel=1e-6)


def test_probes_are_fitted_to_whole_training_images_of_the_test_pipeline(folders):
    flips = [
        dict(type="Resize", scale=(32, 32)),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackInputs"),
    ]
    paradigm, model = made(data=folders, probe=dict(samples=6), pipeline=flips)
    measured(paradigm, model, batches(paradigm))
    reference, names = paradigm._labelled()
    assert names == CLASSES
    assert [int(reference[i]["data_samples"].gt_label) for i in range(6)] == [0, 0, 1, 1, 2, 2]
    assert all(torch.equal(reference[i]["inputs"], reference[i]["inputs"]) for i in range(6))
    assert reference.dataset.source.root.name == "train"


def test_labelled_data_of_mmpretrain_needs_a_data_set_for_the_probes(folders):
    """Probe images named in `probe` by the names of their classes, else measure the loss."""
    source, _ = made(data=folders)
    held_out = batches(source, sizes=(12,))
    paradigm, model = made()
    assert list(measured(paradigm, model, held_out)) == ["loss"]
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(32, 32)),
        dict(type="PackInputs"),
    ]
    dataset = dict(type="CustomDataset", data_root=folders["train"], pipeline=pipeline)
    paradigm, model = made(probe=dict(dataset=dataset, samples=30))
    metrics = measured(paradigm, model, held_out)
    assert [metrics[name].value for name in ("knn", "linear_probe")] == [1.0, 1.0]
    turned = dict(
        dataset,
        metainfo=dict(classes=CLASSES[::-1]),
        data_root="",
        ann_file=_list(folders["train"]),
    )
    paradigm, model = made(data=folders, probe=dict(dataset=turned))
    assert measured(paradigm, model, batches(paradigm, sizes=(7, 5)))["knn"].value == 1.0


def _list(folder: str) -> str:
    """An annotation file that numbers the classes backwards."""
    lines = [
        f"{folder}/{name}/{i}.png {2 - n}" for n, name in enumerate(CLASSES) for i in range(10)
    ]
    path = f"{folder}/../backwards.txt"
    with open(path, "w") as file:
        file.write("\n".join(lines))
    return path


# Classifiers


def test_accuracy_by_hand():
    score = torch.tensor([[3.0, 1.0], [1.0, 2.0], [3.0, 2.0], [0.0, 1.0]])
    metric = accuracy(score, torch.tensor([0, 1, 1, -1]))["accuracy"]
    assert (metric.value, metric.chance) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert accuracy(score, torch.full((4,), -1)) == {}


@pytest.mark.parametrize("out_type", ["cls_token", "avg_featmap"])
def test_a_classifiers_accuracy_comes_first_and_goes_by_the_names_of_its_classes(folders, out_type):
    paradigm, model = made(classifier(out_type=out_type), data=folders)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train = paradigm.build_dataset("train")
    batch = prepared(paradigm, paradigm.collate([train[i] for i in range(30)]))
    for _ in range(30):
        optimizer.zero_grad()
        loss = paradigm.forward(model, batch)["loss"]
        loss.backward()
        optimizer.step()
    held_out = batches(paradigm, sizes=(7, 5))
    metrics = measured(paradigm, model, held_out)
    assert list(metrics) == ["accuracy", "loss"]
    assert (metrics["accuracy"].value, metrics["accuracy"].chance) == (1.0, 0.5)
    with torch.no_grad():
        scores = torch.cat([model(batch["inputs"]) for batch in held_out])[:8]
    label = torch.tensor([1] * 4 + [2] * 4)  # dogs and eels; no zebra
    assert metrics["loss"].value == pytest.approx(
        nn.functional.cross_entropy(scores, label).item(), rel=1e-5
    )


def test_a_classifier_without_labels_has_no_figures(folders):
    paradigm, model = made(classifier(), data=dict(folders, labels=False))
    assert measured(paradigm, model, batches(paradigm)) == {}


def test_the_main_figure_of_autoencoders_is_the_loss(folders):
    paradigm, model = made(mae(), data=folders)
    assert next(iter(measured(paradigm, model, batches(paradigm)))) == "loss"
