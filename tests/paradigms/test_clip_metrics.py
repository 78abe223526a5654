"""Work out metrics of CLIP by hand, and from raw pictures and captions."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

open_clip = pytest.importorskip("open_clip")
from open_clip.zero_shot_classifier import build_zero_shot_classifier_legacy

from compt.interfaces import Images, ImageSource
from compt.paradigms.clip.metrics import contrastive, negatives, retrieval, zero_shot
from tests.paradigms.clip_models import MEAN, STD, made, prepared, raw, transform
from tests.paradigms.conftest import CAPTIONS, KIND, SIZES, picture


def test_zero_shot_by_hand():
    """Score five pictures by three classes.

    Four have a class, and three of these are right.
    """
    scores = torch.tensor(
        [[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    )  # predicted 0, 1, 0, 0, 2
    metrics = zero_shot(scores, torch.eye(3), torch.tensor([0, 1, 2, -1, 2]))
    assert list(metrics) == ["zeroshot_top1", "zeroshot_top5"]
    assert (metrics["zeroshot_top1"].value, metrics["zeroshot_top1"].chance) == (
        0.75,
        pytest.approx(1 / 3),
    )
    assert (metrics["zeroshot_top5"].value, metrics["zeroshot_top5"].chance) == (1.0, 1.0)


def test_zero_shot_top5_of_ten_classes_by_hand():
    """Score class 9 highest and class 0 lowest for every picture.

    5 to 9 are among the first five.
    """
    scores = torch.arange(10.0).repeat(10, 1)
    metrics = zero_shot(scores, torch.eye(10), torch.arange(10))
    assert (metrics["zeroshot_top1"].value, metrics["zeroshot_top1"].chance) == (
        pytest.approx(0.1),
        0.1,
    )
    assert (metrics["zeroshot_top5"].value, metrics["zeroshot_top5"].chance) == (
        pytest.approx(0.5),
        0.5,
    )


def test_zero_shot_classifier_columns_are_classes():
    """Classify two features into three classes, as square matrices hide a transposition."""
    classifier = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    metrics = zero_shot(torch.tensor([[-2.0, 1.0], [0.5, 1.0]]), classifier, torch.tensor([2, 0]))
    assert metrics["zeroshot_top1"].value == 0.5


def test_without_any_class_there_is_no_zero_shot_figure():
    assert zero_shot(torch.eye(2), torch.eye(2), torch.tensor([-1, -1])) == {}


def test_retrieval_by_hand():
    """Count either of two equal texts as right for pictures 0 and 1."""
    token = torch.tensor([[1, 5], [1, 5], [1, 6], [2, 5]])
    image = torch.eye(4)
    text = torch.tensor(  # row: text, column: its similarity to each picture
        [[0.1, 0.9, 0.2, 0.3], [0.9, 0.1, 0.3, 0.2], [0.8, 0.7, 0.4, 0.5], [0.0, 0.2, 0.6, 0.1]]
    )
    metrics = retrieval(image, text, token, ks=(1, 2, 3))
    # pictures: 0 -> text 1 (equal to 0, right), 1 -> 0 (right), 2 -> 3, 2, 1 (right second), 3 ->
    # 2, 0, 1, 3
    assert [metrics[f"image_to_text_R@{k}"].value for k in (1, 2, 3)] == [0.5, 0.75, 0.75]
    # texts: 0 -> 1 (right), 1 -> 0 (right), 2 -> 0, 1, 3, 2 (never), 3 -> 2, 1, 3 (third)
    assert [metrics[f"text_to_image_R@{k}"].value for k in (1, 2, 3)] == [0.5, 0.5, 0.75]


@pytest.mark.parametrize(
    "groups", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 2], [0, 0, 0, 1, 2, 2], [7, 7, 7, 7]]
)
def test_chance_is_the_mean_over_all_orders(groups):
    """Every order of the answers is tried."""
    orders = list(itertools.permutations(groups))
    count = len(groups)
    token = torch.tensor([[g, 1] for g in groups])
    metrics = retrieval(torch.eye(count), torch.eye(count), token, ks=(1, 2, 3, 10))
    for k in (1, 2, 3, 10):
        hits = sum(g in order[:k] for g in groups for order in orders)
        for way in ("image_to_text", "text_to_image"):
            assert metrics[f"{way}_R@{k}"].chance == pytest.approx(
                hits / (count * len(orders)), abs=1e-12
            )


def test_retrieval_goes_beyond_one_chunk():
    """Retrieve among 1500 pairs, the last 300 with the text of the first.

    Each picture finds its own, or an equal one.
    """
    token = torch.arange(1500)[:, None].clone()
    token[1200:] = token[0]
    feature = torch.randn(1500, 64, generator=torch.Generator().manual_seed(0))
    feature = nn.functional.normalize(feature, dim=1)
    metrics = retrieval(feature, feature, token)
    assert [metrics[f"image_to_text_R@{k}"].value for k in (1, 5, 10)] == [1.0, 1.0, 1.0]
    shifted = retrieval(
        feature, feature.roll(1, 0), token, ks=(1,)
    )  # right for 299 of the 301 equal ones, no others
    assert shifted["image_to_text_R@1"].value == pytest.approx(300 / 1500)
    chance = (301 * 301 + 1199) / 1500**2
    assert metrics["text_to_image_R@1"].chance == pytest.approx(chance, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_open_clips_classifier_and_a_plain_search(data, seed):
    """From raw pictures and captions, one by one, with three templates."""
    templates = ("a picture of a {}", "{}", "{} or none")
    paradigm, model = made(seed=seed, data=data, mean=MEAN, std=STD, templates=templates)
    dataset = paradigm.build_dataset("val")
    batches = [
        prepared(paradigm, raw(dataset, range(0, 5))),
        prepared(paradigm, raw(dataset, range(5, 8))),
    ]
    with torch.no_grad():
        metrics = paradigm.metrics(model, "val", batches)
        tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=12)
        classifier = build_zero_shot_classifier_legacy(
            model, tokenizer, ["bird", "cat", "dog"], templates
        )
        images = [
            model.encode_image(transform(32)(picture(i, s))[None])[0] for i, s in enumerate(SIZES)
        ]
        texts = [model.encode_text(tokenizer([caption]))[0] for caption in CAPTIONS]
    images, texts = ([f / f.norm() for f in features] for features in (images, texts))
    predicted = [["bird", "cat", "dog"][int((f @ classifier).argmax())] for f in images]
    right = [p == k for p, k in zip(predicted, KIND) if k]
    assert next(iter(metrics)) == "zeroshot_top1"
    assert metrics["zeroshot_top1"].value == pytest.approx(sum(right) / 7)
    assert metrics["zeroshot_top1"].chance == pytest.approx(1 / 3)
    for way, queries, answers in (
        ("image_to_text", images, texts),
        ("text_to_image", texts, images),
    ):
        for k in (1, 5, 10):
            hits = 0
            for i, query in enumerate(queries):
                order = sorted(range(8), key=lambda j: -float(query @ answers[j]))[:k]
                hits += any(CAPTIONS[j] == CAPTIONS[i] for j in order)
            assert metrics[f"{way}_R@{k}"].value == pytest.approx(hits / 8), (way, k)


def test_metrics_of_data_without_classes_are_retrieval_and_loss(data):
    paradigm, model = made(data={k: v for k, v in data.items() if k != "label_key"})
    with torch.no_grad():
        metrics = paradigm.metrics(
            model, "val", [prepared(paradigm, raw(paradigm.build_dataset("val")))]
        )
    assert list(metrics) == [
        *(f"{way}_R@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
        "contrastive_loss",
    ]


def test_contrastive_loss_by_hand():
    """Deal 250 pairs out to two batches of 100 and leave 50 out, as a loop over them does."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 250, 8, generator=generator).unbind()
    losses = []
    for batch in (range(0, 200, 2), range(1, 200, 2)):
        logits = 3 * image[batch] @ text[batch].T
        for way in (logits, logits.T):
            losses.append(float((way.logsumexp(1) - way.diag()).mean()))
    metric = contrastive(image, text, torch.tensor(3.0))["contrastive_loss"]
    assert metric.value == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert (metric.chance, metric.higher_is_better) == (pytest.approx(4.60517), False)


def test_contrastive_loss_of_few_pairs_is_that_of_one_batch():
    same = torch.ones(7, 4)
    metric = contrastive(same, same, torch.tensor(5.0))["contrastive_loss"]
    assert metric.value == pytest.approx(metric.chance, rel=1e-5)
    right = contrastive(torch.eye(7), torch.eye(7), torch.tensor(50.0))["contrastive_loss"]
    assert right.value == pytest.approx(0, abs=1e-6)


def test_negatives_by_hand():
    """Of four with a wrong caption two are told from it, one is not and one ties."""
    image = torch.eye(5)
    text = torch.eye(5)
    wrong = torch.zeros(5, 5)
    wrong[2, 2], wrong[3, 3], wrong[4, 4] = 2.0, 1.0, 5.0
    counts = torch.tensor([True, True, True, True, False])
    metric = negatives(image, text, wrong, counts)["negative_accuracy"]
    assert (metric.value, metric.chance) == (2.5 / 4, 0.5)
    assert negatives(image, text, wrong, torch.zeros(5, dtype=torch.bool)) == {}


class Swapped(ImageSource):
    """Three images with captions, two of them with a wrong one."""

    provides = frozenset({"image", "captions", "negative"})
    splits = ("train", "val")

    def open(self, split, *, captions=True, image_size=None):
        return SwappedImages()


class SwappedImages(Images):
    captions_of = ("a red dog", "a cat", "a blue dog")
    wrong = ("a dog red", "", "a red dog")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        sample = {"image": picture(index, (32, 32)), "captions": (self.captions_of[index],)}
        sample["label"] = -1
        return sample | ({"negative": self.wrong[index]} if self.wrong[index] else {})


def test_wrong_captions_of_any_source_are_measured():
    """Held out alone, from raw captions; a sample without one does not count."""
    paradigm, model = made(data=dict(type=Swapped))
    assert "negative" not in paradigm.build_dataset("train")[0]
    dataset = paradigm.build_dataset("val")
    batches = [prepared(paradigm, raw(dataset, [0, 1])), prepared(paradigm, raw(dataset, [2]))]
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=12)
    with torch.no_grad():
        metrics = paradigm.metrics(model, "val", batches)
        right = 0
        for i in (0, 2):
            image = model.encode_image(batches[i // 2]["image"][:1], normalize=True)
            texts = tokenizer([SwappedImages.captions_of[i], SwappedImages.wrong[i]])
            near, far = (image @ model.encode_text(texts, normalize=True).T)[0].tolist()
            right += near > far
    assert metrics["negative_accuracy"].value == right / 2
    assert batches[0]["negative"].tolist() == tokenizer(["a dog red", "a cat"]).tolist()
