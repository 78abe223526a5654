"""Compare pixels and tokens of CLIP with open_clip's own."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

open_clip = pytest.importorskip("open_clip")

from compt import ConfigError
from compt.paradigms.clip.data import PairDataset
from compt.paradigms.clip.paradigm import Clip
from tests.paradigms.clip_models import MEAN, MODEL, STD, changed, made, prepared, raw, transform
from tests.paradigms.conftest import CAPTIONS, SIZES, picture


def test_pixels_equal_open_clips_for_every_shape(data):
    """Allow float32 rounding of the normalisation alone.

    Both round to uint8 when they resize.
    """
    paradigm, _ = made(data=data, mean=MEAN, std=STD)
    ours = prepared(paradigm, raw(paradigm.build_dataset("val")))["image"]
    theirs = torch.stack([transform(32)(picture(i, size)) for i, size in enumerate(SIZES)])
    assert ours.shape == (8, 3, 32, 32)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(32, 64), (48, 16)])
def test_pixels_equal_open_clips_for_models_that_are_not_square(data, size):
    paradigm, _ = made(changed(MODEL, vision_image_size=list(size)), data=data, mean=MEAN, std=STD)
    ours = prepared(paradigm, raw(paradigm.build_dataset("val")))["image"]
    theirs = torch.stack([transform(size)(picture(i, s)) for i, s in enumerate(SIZES)])
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)


def test_random_crops_equal_open_clips_for_the_same_random_numbers(data):
    """Crop at least 0.9 of the area, as open_clip does by default."""
    paradigm, _ = made(data=data)
    dataset = paradigm.build_dataset("train")
    crop = transform(32, train=True, mean=paradigm.mean, std=paradigm.std)
    for i, size in enumerate(SIZES):
        torch.manual_seed(i)
        ours = prepared(paradigm, raw(dataset, [i]))["image"][0]
        torch.manual_seed(i)
        assert torch.allclose(ours, crop(picture(i, size)), atol=1e-6, rtol=0), size


def test_without_augmentation_training_sees_what_evaluation_sees(data):
    paradigm, _ = made(data=data, augment=None)
    train, val = (raw(paradigm.build_dataset(split)) for split in ("train", "val"))
    assert all(torch.equal(train[k], val[k]) for k in train)
    augmented, _ = made(data=data, augment=0.3)
    assert not torch.equal(raw(augmented.build_dataset("train"))["image"], val["image"])
    assert torch.equal(raw(augmented.build_dataset("val"))["image"], val["image"])


@pytest.mark.parametrize("augment", [0.0, 1.5, -0.1])
def test_an_impossible_crop_is_refused(augment):
    with pytest.raises(ConfigError, match="augment"):
        Clip(augment=augment)


@pytest.mark.parametrize("kwargs", [{}, {"clean": "canonicalize"}])
def test_tokens_equal_open_clips(tmp_path, kwargs):
    paradigm, model = made(changed(MODEL, text_tokenizer_kwargs=kwargs))
    paradigm.export(model, tmp_path)
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    texts = [*CAPTIONS, "", "Many words, " * 20, "<b>&amp;</b> été 你好 🙂", "UPPER-case_under"]
    tokens = paradigm.tokenizer(texts)
    assert tokens.shape == (len(texts), 12)
    assert torch.equal(tokens, theirs(texts))
    default = open_clip.get_tokenizer("ViT-B-32", context_length=12)(texts)
    assert torch.equal(tokens, default) is (not kwargs)


def test_samples_hold_the_tokens_and_classes_of_their_rows(data):
    paradigm, _ = made(data=data)
    dataset = paradigm.build_dataset("val")
    assert dataset.classes == ("bird", "cat", "dog")
    batch = raw(dataset)
    assert torch.equal(
        batch["text"], open_clip.get_tokenizer("ViT-B-32", context_length=12)(CAPTIONS)
    )
    assert batch["label"].tolist() == [2, 1, 2, 0, 1, 0, 2, -1]
    assert (batch["image"].dtype, batch["text"].dtype) == (torch.uint8, torch.int64)


def test_training_draws_a_caption_and_evaluation_takes_the_first():
    source = [dict(image=picture(0, (8, 8)), captions=("a", "b", "c"), label=0)]

    def tokenize(texts):
        return torch.tensor([[ord(text)] for text in texts])

    train, val = (
        PairDataset(source, (8, 8), tokenize, augment=None, draws_caption=draws)
        for draws in (True, False)
    )
    assert {chr(train[0]["text"]) for _ in range(100)} == {"a", "b", "c"}
    assert {chr(val[0]["text"]) for _ in range(20)} == {"a"}


def test_a_data_set_survives_the_way_to_a_worker(data):
    paradigm, _ = made(data=data)
    dataset = paradigm.build_dataset("val")
    first, second = raw(dataset), raw(pickle.loads(pickle.dumps(dataset)))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_num_samples_may_be_given_where_the_data_is_not(data):
    paradigm = Clip(data=dict(type="csv", train="nowhere.csv", num_samples=5_000_000))
    assert paradigm.num_samples("train") == 5_000_000
    assert made(data=data)[0].num_samples("val") == 8


@pytest.mark.parametrize("changes", [dict(caption_key=None), dict(type="folder")])
def test_images_without_captions_are_refused(data, changes):
    cfg = {**data, **changes}
    if cfg["type"] == "folder":
        cfg = dict(type="folder", **{split: Path(data[split]).parent for split in ("train", "val")})
    with pytest.raises(
        ConfigError,
        match=rf"(?s)needs data with image and captions; type '{cfg['type']}' provides image and "
        "label.*These provide it: .*csv.*icons.*webdataset",
    ) as caught:
        made(data=cfg)
    assert "folder" not in str(caught.value.do)


class Pairs:
    """Four pictures with captions of some lengths, the last of them broken on reading."""

    classes = ()

    def captions(self, index):
        return (("word " * [3, 9, 10, 40][index]).strip(),)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"image": picture(index, (32, 32)), "captions": self.captions(index), "label": -1}


class Unseen(Pairs):
    """A source that gives captions with their images alone."""

    captions = None

    def __getitem__(self, index):
        return {"image": picture(0, (32, 32)), "captions": ("word " * 40,), "label": -1}


def test_captions_that_are_cut_are_counted_before_and_while_reading():
    """The context holds ten words beside its two marks."""
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=12)
    dataset = PairDataset(Pairs(), (32, 32), tokenizer, augment=None)
    assert dataset.left_out.parts == {"samples whose caption is cut to 12 tokens": 1}
    assert (dataset.left_out.num_read, dataset.left_out.samples) == (None, {})

    unseen = PairDataset(Unseen(), (32, 32), tokenizer, augment=None)
    assert unseen.left_out.parts == {}
    copy = pickle.loads(pickle.dumps(unseen))
    assert [len(dataset[2]["text"]) for dataset in (unseen, copy)] == [12, 12]
    assert unseen.left_out.parts == {"samples whose caption is cut to 12 tokens": 1}
    assert unseen.left_out.num_read == 1


def test_a_tokenizer_that_takes_no_context_counts_nothing():
    dataset = PairDataset(
        Pairs(), (32, 32), lambda texts: torch.ones(len(texts), 5).long(), augment=None
    )
    assert dataset.left_out.parts == {}
    assert dataset.fingerprint["samples"] == 4
