from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compt.data import open_source, renumber, splits
from compt.data.images.csv import CsvPairs
from compt.data.images.folder import FolderImages
from compt.data.images.shards import ShardPairs
from compt.errors import ConfigError
from compt.registry import DATA

from .conftest import picture


def test_csv_splits_and_shared_options(pictures: Path) -> None:
    for name in ("a", "b"):
        (pictures / f"{name}.csv").write_text(f"file,caption\n01.png,{name}\n")
    cfg = {
        "type": "csv",
        "train": str(pictures / "a.csv"),
        "night": pictures / "b.csv",
        "image_key": "file",
        "max_broken": 0.1,
    }
    assert splits(cfg) == ("night",)
    data = open_source(split="night", **cfg)
    assert isinstance(data, CsvPairs)
    assert (data[0]["captions"], data.max_broken) == (("b",), 0.1)


@pytest.mark.parametrize("type", ["shards", "webdataset"])
def test_shards(make_tar: Callable, type: str, tmp_path: Path) -> None:
    path = make_tar("a.tar", {"0.png": picture(1), "0.txt": b"one"})
    data = open_source(type, "val", val=[path], cache_dir=tmp_path / "cache")
    assert isinstance(data, ShardPairs)
    assert len(data) == 1


def test_folders(pictures: Path) -> None:
    cfg = {
        "type": "folder",
        "train": "elsewhere",
        "val": pictures,
        "labels": False,
        "max_broken": 0.2,
    }
    assert splits(cfg) == ("val",)
    data = open_source(split="val", **cfg)
    assert isinstance(data, FolderImages)
    assert (len(data), data.max_broken) == (20, 0.2)


def test_caption_key_none_is_the_same_for_tables_and_shards(
    make_tar: Callable, tmp_path: Path
) -> None:
    tar = make_tar("a.tar", {"0.png": picture(1), "0.txt": b"one"})
    (tmp_path / "0.png").write_bytes(picture(1))
    (tmp_path / "a.csv").write_text("image,caption\n0.png,one\n")
    for type, file, options in (
        ("webdataset", tar, {"cache_dir": tmp_path / "cache"}),
        ("csv", tmp_path / "a.csv", {}),
    ):
        cfg = {"type": type, "train": file, **options}
        assert open_source(split="train", **cfg)[0]["captions"] == ("one",)
        assert splits({**cfg, "caption_key": None}) == ()
        assert open_source(split="train", **cfg, caption_key=None)[0]["captions"] == ()


def test_labels_meet_by_the_names_of_their_classes() -> None:
    assert renumber([0, 1, 2, -1], ("bird", "cat", "emu"), ("cat", "dog", "bird")).tolist() == [
        2,
        0,
        -1,
        -1,
    ]
    assert renumber([-1, -1], (), ("cat",)).tolist() == [-1, -1]


def test_icons_have_their_splits() -> None:
    assert splits({"type": "icons"}) == ("concept", "vendor")
    assert splits({"type": "icons", "image_size": 48}) == ("concept", "vendor")


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "icon"}, "Did you mean 'icons'"),
        ({}, "no type"),
        ({"type": "icons", "imagesize": 3}, "Did you mean 'image_size'"),
        ({"type": "icons", "train": "a.csv"}, "takes no argument 'train'"),
        ({"type": "csv", "train": "a.csv", "captoin_key": "title"}, "Did you mean 'caption_key'"),
        ({"type": "csv", "train": "a.csv", "batch": 3}, "no option 'batch'"),
        ({"type": "webdataset", "train": "a.tar", "val": []}, "no option 'val'"),
        (
            {"type": "webdataset", "train": "a.tar", "caption_key": "txt"},
            "Did you mean 'caption_keys'",
        ),
        (
            {"type": "webdataset", "train": "a", "caption_key": None, "caption_keys": ["txt"]},
            "no option 'caption_key'",
        ),
        ({"type": "csv", "train": ["a.csv", "b.csv"]}, "one file, no list"),
        ({"type": "folder", "train": ["a", "b"]}, "one folder, no list"),
        ({"type": "folder", "train": "a", "label": False}, "Did you mean 'labels'"),
        (
            {"type": "folder", "train": "a", "caption_key": None},
            "(?s)no option 'caption_key'.*a split and its folder",
        ),
        ({"type": "folders", "train": "a"}, "Did you mean 'folder'"),
    ],
)
def test_faults_name_what_there_is(cfg: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        splits(cfg)
    assert "do:" in str(caught.value) or "It takes: " in str(caught.value)


def test_a_missing_split_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no split 'vla'. Did you mean 'val'.*train, val"):
        open_source("csv", "vla", train="a.csv", val="b.csv")
    with pytest.raises(
        ConfigError,
        match=r"(?s)data of type 'folder'.*Name what holds it: data=dict\(\.\.\., test=",
    ):
        open_source("folder", "test", train="a", val="b")
    with pytest.raises(ConfigError, match="no split 'train'"):
        open_source("webdataset", "train", val="b.tar")


def test_every_source_says_what_it_raises() -> None:
    assert all("Raises:" in (DATA.get(name).__doc__ or "") for name in DATA.names())
