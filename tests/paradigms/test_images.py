"""Hold views, whole images and neighbours to what a source holds and to figures by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("torchvision")

from compt.errors import ConfigError
from compt.interfaces import Member
from compt.paradigms.averages import average_of, move_average, restart_average, rising
from compt.paradigms.images import (
    ImageParadigm,
    View,
    Views,
    WholeImages,
    labelled_features,
    neighbours,
    random_view,
)
from tests.paradigms.mae_models import image_folder


class Pair(ImageParadigm):
    """Two views of an image and a net that sums pixels, with nothing to learn."""

    outputs = frozenset({"sum"})

    def build_model(self, member):
        self.hold_image_size(member.name, member.model["size"])
        return nn.Linear(1, 1)

    def views(self):
        return {"pair": random_view(2, self.image_size, (0.5, 1.0))}

    def forward(self, model, batch):
        return {"sum": batch["pair"].sum()}

    def loss(self, outputs, batch):
        return {"sum": outputs["sum"]}

    def metrics(self, model, split, batches):
        return {}

    def export(self, model, folder): ...

    def load(self, path): ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training images of two classes, and held-out ones of three."""
    root = tmp_path_factory.mktemp("images")
    train = image_folder(root / "train", count=4)
    val = image_folder(root / "val", classes=("ape", "cat", "dog"), count=2)
    return dict(type="folder", train=str(train), val=str(val))


@pytest.fixture
def paradigm(folder):
    made = Pair(data=folder)
    made.build_model(Member("a", dict(size=16)))
    return made


def test_the_training_split_is_views_and_others_are_whole(paradigm):
    views, whole = paradigm.build_dataset("train"), paradigm.build_dataset("val")
    assert isinstance(views, Views) and isinstance(whole, WholeImages)
    assert {k: (v.shape, v.dtype) for k, v in views[0].items()} == {
        "pair": ((2, 3, 16, 16), torch.uint8)
    }
    assert not torch.equal(*views[0]["pair"])
    assert whole[0]["image"].shape == (3, 16, 16)
    assert len(views) == 8 and len(whole) == 6 and len(paradigm.build_reference("train")) == 8


def test_labels_are_of_the_training_splits_classes(paradigm):
    """Apes are in none; how many there are is said."""
    whole = paradigm.build_dataset("val")
    assert whole.classes == ("cat", "dog")
    assert [whole[i]["label"] for i in range(6)] == [-1, -1, 0, 0, 1, 1]
    unknown = "samples of a class that the training split lacks"
    assert whole.left_out.to_json()["parts"][unknown] == 2


def test_what_a_source_says_of_itself_is_handed_on(paradigm):
    views = paradigm.build_dataset("train")
    assert views.fingerprint == views.source.fingerprint
    assert views.left_out.to_json() == views.source.left_out.to_json()


def test_views_of_one_seed_are_equal(paradigm):
    views, seen = paradigm.build_dataset("train"), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seen.append(views[3]["pair"])
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_pixels_are_scaled_and_labels_are_not(paradigm):
    raw = {"image": torch.tensor([0, 255], dtype=torch.uint8), "label": torch.tensor([3, -1])}
    ready = paradigm.prepare(raw, generator=torch.Generator())
    assert ready["image"].tolist() == [-1.0, 1.0] and ready["label"].tolist() == [3, -1]


def test_an_example_has_the_shapes_of_views(paradigm):
    example = paradigm.example_batch(nn.Linear(1, 1, device="meta"), 5)
    assert example["pair"].shape == (5, 2, 3, 16, 16) and example["pair"].is_meta


def test_members_of_another_image_size_are_refused(paradigm):
    with pytest.raises(ConfigError, match=r"'b' has image size 24, the members before it 16"):
        paradigm.build_model(Member("b", dict(size=24)))
    with pytest.raises(ConfigError, match="build_model first"):
        Pair().build_dataset("train")


def test_any_transform_makes_a_view():
    image = Image.fromarray(np.full((4, 4, 3), 7, np.uint8))
    black = View(3, 2, lambda seen: torch.zeros(3, 2, 2, dtype=torch.uint8) + seen.width)
    views = Views([{"image": image, "label": 0}], {"small": black})
    assert views[0]["small"].shape == (3, 3, 2, 2) and (views[0]["small"] == 4).all()


def test_neighbours_by_hand():
    """One of two queries lies by its own class; the other has no neighbour of its class."""
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([0, 1])
    queries = torch.tensor([[0.6, 0.8], [0.0, 1.0]]), torch.tensor([1, 2])
    metric = neighbours(bank, queries)["knn"]
    assert (metric.value, metric.chance) == (0.5, 0.5)


def test_the_temperature_says_how_much_the_nearest_decides():
    """One of class 0 at cosine 1, two of class 1 at 0.8: e^(1/t) against 2 e^(0.8/t)."""
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]]), torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    values = [neighbours(bank, query, temperature=t)["knn"].value for t in (0.25, 0.35)]
    assert values == [1.0, 0.0], "0.2 / t against ln 2 = 0.693"
    assert neighbours(bank, query, count=1, temperature=9)["knn"].value == 1.0


def test_images_without_a_label_are_in_no_bank():
    batch = {"image": torch.tensor([[3.0, 4.0], [1.0, 0.0]]), "label": torch.tensor([2, -1])}
    features, labels = labelled_features(lambda images: images, [batch])
    assert features.tolist() == [pytest.approx([0.6, 0.8])] and labels.tolist() == [2]
    nothing = labelled_features(lambda images: images, [])
    assert neighbours(nothing, (features, labels)) == neighbours((features, labels), nothing) == {}


def test_the_guides_paradigm_trains_and_grows_its_teacher_anew(folder, tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    section = guide.partition("### Several views of images")[2]
    names = {"__name__": "guide"}
    exec(re.search(r"```python\n(.*?)```", section, re.S).group(1), names)
    paradigm = names["SeeAlike"](data=folder)
    model = paradigm.build_model(Member("a", dict(size=32)))

    def batches_of(split):
        dataset = paradigm.build_reference(split)
        raw = paradigm.collate([dataset[i] for i in range(len(dataset))])
        return [paradigm.prepare(raw, generator=torch.Generator())]

    dataset = paradigm.build_dataset("train")
    raw = paradigm.collate([dataset[i] for i in range(4)])
    batch = paradigm.prepare(raw, generator=torch.Generator())
    outputs = paradigm.forward(model, batch)
    paradigm.loss(outputs, batch)["alike"].backward()
    assert model.student.fc.weight.grad.any() and model.teacher.fc.weight.grad is None
    paradigm.after_step(model, progress=0.5)
    model.student.fc.weight.data.add_(1)
    paradigm.after_growth(model)
    assert torch.equal(model.teacher.fc.weight, model.student.fc.weight)
    metrics = paradigm.metrics(model.eval(), "val", batches_of("val"), batches_of=batches_of)
    assert set(metrics) == {"knn"} and metrics["knn"].chance == 0.5
    paradigm.export(model, tmp_path)
    again = paradigm.load(tmp_path)
    assert torch.equal(again.student.fc.weight, model.student.fc.weight)


# Averages


def test_an_average_moves_by_its_momentum_and_has_the_buffers():
    module = nn.BatchNorm1d(2)
    average = average_of(module)
    assert not any(param.requires_grad for param in average.parameters())
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.running_mean.fill_(5.0)
    move_average(average, module, 0.75)
    assert average.weight.tolist() == [1.5, 1.5] and average.running_mean.tolist() == [5.0, 5.0]
    restart_average(average, module)
    assert average.weight.tolist() == [3.0, 3.0] and not average.weight.requires_grad


def test_a_momentum_rises_to_one():
    assert [rising(0.9, share) for share in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
