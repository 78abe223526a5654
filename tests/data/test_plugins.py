"""Sources of other packages: found by name, asked for what they provide, read like compt's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import compt
from compt.data import build_source, open_source, open_text, splits
from compt.data.text import _pieces, open_tokens
from compt.errors import ConfigError, PluginError
from compt.registry import DATA

from .byte_tokenizer import ByteTokenizer, expected, stream

SHADES = """
import compt
from PIL import Image

class Shades(compt.ImageSource):
    provides = frozenset({"image", "captions"})
    splits = ("train", "dawn", "dusk")

    def __init__(self, *, light=7, num_samples=None):
        super().__init__(num_samples=num_samples)
        self.light = light

    def open(self, split, *, captions=True, image_size=None):
        self.check_split(split)
        return Images(self.light, image_size or 8)

class Images(compt.Images):
    def __init__(self, light, size):
        self.light, self.size = light, size

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError(index)
        image = Image.new("RGB", (self.size, self.size), (self.light + index, 0, 0))
        return {"image": image, "captions": (f"shade {index}",), "label": -1}
"""


@pytest.fixture
def shades(install):
    """A package with a source of images, beside one that cannot be imported."""
    install("alpha", {"shades": "alpha_m:Shades"}, {"alpha_m": SHADES}, group="compt.data")
    install("beta", {"torn": "beta_m:Torn"}, {"beta_m": "import no_such"}, group="compt.data")


@pytest.mark.usefixtures("shades")
class TestImages:
    def test_a_source_of_a_package_is_named_in_a_config(self):
        cfg = dict(type="shades", light=40)
        assert splits(cfg) == ("dawn", "dusk")
        images = open_source(split="dusk", **cfg)
        assert (len(images), images[1]["captions"], images.broken_count) == (3, ("shade 1",), 0)
        assert images[2]["image"].getpixel((0, 0)) == (42, 0, 0)
        assert open_source("alpha:shades", "train")[0]["image"].size == (8, 8)

    def test_paradigms_train_on_it(self):
        pytest.importorskip("open_clip")
        from tests.paradigms.clip_models import made

        paradigm, _ = made(data=dict(type="shades", num_samples=50))
        assert (paradigm.splits, paradigm.num_samples("train")) == (("dawn", "dusk"), 50)
        sample = paradigm.build_dataset("dawn")[1]
        assert tuple(sample["image"].shape) == (3, 32, 32), "drawn at the model's size"
        assert paradigm.num_samples("dawn") == 3

    def test_wrong_options_and_splits_are_named(self):
        with pytest.raises(ConfigError, match=r"(?s)'lihgt'. Did you mean 'light'.*type 'shades'"):
            splits(dict(type="shades", lihgt=3))
        with pytest.raises(ConfigError, match=r"(?s)'dawm'. Did you mean 'dawn'.*train, dawn, du"):
            open_source("shades", "dawm")
        with pytest.raises(ConfigError, match=r"(?s)'shade'. Did you mean 'shades'.*'compt.data'"):
            splits(dict(type="shade"))
        with pytest.raises(PluginError, match="'torn' of beta"):
            splits(dict(type="torn"))

    def test_what_a_source_lacks_is_said_with_those_that_have_it(self):
        with pytest.raises(ConfigError) as caught:
            build_source(dict(type="shades"), ["image", "label"], ["text"])
        assert caught.value.what == (
            "The paradigm needs data with image and label or text; type 'shades' provides "
            "captions and image."
        )
        named = caught.value.do.removeprefix("These provide it: ").rstrip(".").split(", ")
        assert {"csv", "folder", "jsonl", "stdlib"} <= set(named)
        assert not {"shades", "tokens", "torn"} & set(named)
        assert build_source(dict(type="shades"), ["text"], ["image"]).provides >= {"image"}

    def test_a_class_may_stand_for_its_name(self):
        shades = DATA.get("shades")
        assert splits(dict(type=shades)) == ("dawn", "dusk")
        with pytest.raises(ConfigError, match="type 'Shades' provides"):
            build_source(dict(type=shades), ["text"])


def test_options_that_leave_captions_out_are_said_to(tmp_path: Path) -> None:
    cfg = dict(type="csv", train=tmp_path / "a.csv", caption_key=None)
    with pytest.raises(ConfigError, match="'csv' provides image and label with these options"):
        build_source(cfg, ["image", "captions"])


@pytest.mark.parametrize("number", [0, -3, 2.5, "many", True, float("inf"), float("nan")])
def test_a_size_that_is_none(number: object) -> None:
    with pytest.raises(ConfigError, match=r"(?s)num_samples.*type 'csv'"):
        build_source(dict(type="csv", train="a.csv", num_samples=number))


def test_a_size_is_of_the_training_split() -> None:
    source = build_source(dict(type="csv", train="a.csv", val="b.csv", num_samples=5e6))
    assert (source.num_samples("train"), source.num_samples("val")) == (5_000_000, None)


def test_images_without_captions_break_no_sample(pictures: Path) -> None:
    (pictures / "a.csv").write_text("image,caption\n01.png,\n02.png,two\n")
    source = build_source(dict(type="csv", train=pictures / "a.csv", max_broken=0.5))
    assert source.open("train").left_out.samples == {"without a caption": 1}
    assert source.open("train", captions=False).left_out.samples == {}


def test_open_text_gives_whole_documents(tmp_path: Path) -> None:
    documents = ["one", "x" * 200_000, "two\nlines"]
    lines = [json.dumps(dict(text=text)) for text in (*documents, " ")]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    cfg = dict(type="jsonl", val=tmp_path / "a.jsonl")
    text = open_text(cfg, "val")
    assert list(text) == list(text) == documents
    assert text.skipped == 1
    with pytest.raises(ConfigError, match="no split 'train'"):
        open_text(cfg, "train")
    for kind in ("csv", "tokens"):
        with pytest.raises(ConfigError, match=rf"(?s)needs data with text; type '{kind}'.*jsonl"):
            open_text(dict(type=kind, val="a"), "val")


class Essays(compt.TextSource):
    """Documents, one of them longer than a piece, which note how often they are read."""

    splits = ("train", "val")
    times = 0

    def __init__(self, *, words=3, cache_dir=None, num_samples=None):
        super().__init__(num_samples=num_samples)
        self.words, self.cache_dir = words, cache_dir

    def open(self, split):
        self.check_split(split)
        return Essay(split, self.words)


class Essay(compt.Text):
    where = "a drawer"

    def __init__(self, split, words):
        self.fingerprint = f"{split} {words}"
        self.documents = ("word " * words, " ", "end")

    def __iter__(self):
        Essays.times += 1
        yield from self.documents


def test_text_of_another_source_is_tokenised_once(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    cfg = dict(type=Essays, words=30_000, cache_dir=tmp_path)
    for _ in range(2):
        blocks = open_tokens(cfg, "train", tokenizer, 7)
        assert (blocks.skipped, blocks.num_tokens) == (1, len(expected("word " * 30_000, "end")))
    assert Essays.times == 1
    assert max(map(len, tokenizer.texts)) <= _pieces.PIECE
    assert stream(open_tokens({**cfg, "words": 1}, "val", tokenizer, 1)) == expected("word ", "end")
    assert Essays.times == 2


def test_tokens_of_another_source(tmp_path: Path) -> None:
    np.arange(20, dtype="uint16").tofile(tmp_path / "a.bin")

    class Digits(compt.TokenSource):
        splits, cache_dir = ("train",), tmp_path

        def open(self, split):
            self.check_split(split)
            return compt.Tokens((compt.TokenSpan(tmp_path / "a.bin", "uint16", 4, 18),), 18)

    blocks = open_tokens(dict(type=Digits), "train", ByteTokenizer(), 5)
    assert (stream(blocks), blocks.num_bytes) == (list(range(2, 18)), 18)
    with pytest.raises(compt.DataError, match="has the token 19; the tokenizer has 0 to 18"):
        open_tokens(dict(type=Digits), "train", ByteTokenizer(19), 5)


def test_all_sources_of_compt_are_plug_ins() -> None:
    assert set(DATA.names()) >= {
        "csv", "datasets", "folder", "icons", "jsonl", "parquet", "scenes", "shards", "stdlib",
        "text", "tokens", "webdataset",
    }  # fmt: skip
