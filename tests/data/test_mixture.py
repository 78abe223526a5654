"""Several sources as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compt.data import build_source, open_source
from compt.data.text import MixedBlocks, open_tokens
from compt.errors import ConfigError, PluginError
from compt.interfaces import fingerprint, left_out
from compt.interfaces.mixture import Mixture
from compt.training.known_samples import known_samples

from .byte_tokenizer import ByteTokenizer


@pytest.fixture
def tables(pictures: Path) -> list[dict[str, Any]]:
    """Two tables with classes of which they have one in common."""
    rows = {"a": "\n".join(f"{i:02d}.png,a {i},{'xy'[i % 2]}" for i in range(6))}
    rows["b"] = "\n".join(f"{i:02d}.png,b {i},{'yz'[i % 2]}" for i in range(10, 20))
    for name, lines in rows.items():
        (pictures / f"{name}.csv").write_text(f"image,caption,kind\n{lines}\n")
    return [
        dict(type="csv", train=str(pictures / f"{name}.csv"), label_key="kind", **splits)
        for name, splits in (
            ("a", {"val": str(pictures / "a.csv")}),
            ("b", {"val": str(pictures / "b.csv"), "night": str(pictures / "b.csv")}),
        )
    ]


def test_samples_stand_one_after_the_other_with_classes_of_all(tables: list) -> None:
    mixed = open_source("mixture", "train", sources=tables, weights=[3, 1])
    assert mixed.mixture == Mixture((6, 10), (3, 1))
    assert mixed.classes == ("x", "y", "z")
    samples = [mixed[i] for i in range(16)]
    captions = [f"a {i}" for i in range(6)] + [f"b {i}" for i in range(10, 20)]
    assert [sample["captions"] for sample in samples] == [(caption,) for caption in captions]
    assert [mixed.classes[sample["label"]] for sample in samples] == [*"xyxyxy", *"yzyzyzyzyz"]
    assert mixed.labels.tolist() == [sample["label"] for sample in samples]
    assert [mixed.captions(i) for i in (5, 6, -1)] == [("a 5",), ("b 10",), ("b 19",)]
    with pytest.raises(IndexError):
        mixed[16]


def test_held_out_splits_are_those_of_the_sources(tables: list) -> None:
    source = build_source(dict(type="mixture", sources=tables, weights=[3, 1]))
    assert source.splits == ("train", "val", "night")
    assert (len(source.open("val")), len(source.open("night"))) == (16, 10)
    assert source.open("val").mixture.weights is None
    assert source.provides == {"image", "captions", "label"}
    assert source.num_samples("train") is None
    with pytest.raises(ConfigError, match="no split 'nihgt'"):
        source.open("nihgt")


def test_what_sources_say_is_said_together(tables: list, pictures: Path) -> None:
    with (pictures / "b.csv").open("a") as file:
        file.write(",no image,z\n")
    (pictures / "03.png").write_bytes(b"")
    tables = [{**table, "max_broken": 0.5} for table in tables]
    mixed = open_source("mixture", "train", sources=tables)
    assert mixed.check() == mixed.broken_count == 1
    whole = left_out(mixed)
    assert (whole.total, whole.num_samples, whole.max_broken) == (17, 2, 0.5)
    assert [len(known) for known in known_samples(mixed)] == [6, 10]
    parts = fingerprint(mixed)["parts"]
    assert parts == [fingerprint(open_source(split="train", **table)) for table in tables]


def test_text_and_tokens_are_mixed_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefgh" * 5)
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "b.bin")
    sources = [
        dict(type="text", train=str(tmp_path / "a.txt"), cache_dir=tmp_path / "cache"),
        dict(type="tokens", train=str(tmp_path / "b.bin"), cache_dir=tmp_path / "cache"),
    ]
    cfg = dict(type="mixture", sources=sources, weights=[1, 2])
    blocks = open_tokens(cfg, "train", ByteTokenizer(), 8)
    parts = [open_tokens(source, "train", ByteTokenizer(), 8) for source in sources]
    assert isinstance(blocks, MixedBlocks)
    assert blocks.mixture == Mixture(tuple(map(len, parts)), (1, 2))
    expected = [part[i]["tokens"].tolist() for part in parts for i in range(len(part))]
    assert [block["tokens"].tolist() for block in blocks.__getitems__(range(17))] == expected
    assert blocks.num_tokens == sum(part.num_tokens for part in parts)
    assert blocks.num_bytes is None  # of tokens made elsewhere it is not known
    with pytest.raises(ConfigError, match="in blocks of tokens"):
        open_source(split="train", **cfg)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(weights=[1]), r"weights=\[1\] are not 2 numbers from 0 on"),
        (dict(weights=[0, 0]), "above 0"),
        (dict(sources=[dict(type="stdlib")]), "two sources or more"),
        (dict(sources=[dict(type="stdlib"), dict(type="folder", train="a")]), "in common"),
        (dict(sources=[dict(type="stdlib"), dict(type="text", val="a")]), "no split 'train'"),
        (
            dict(sources=[dict(type="stdlib"), dict(type="mixture", sources=[])]),
            "two sources or more|stands in a mixture",
        ),
    ],
)
def test_mixtures_that_cannot_be(changed: dict, message: str) -> None:
    sources = [dict(type="stdlib"), dict(type="text", train="a.txt")]
    with pytest.raises((ConfigError, PluginError), match=message):
        build_source(dict(type="mixture", sources=sources) | changed)


def test_a_mixture_within_a_mixture() -> None:
    text = dict(type="stdlib")
    inner = dict(type="mixture", sources=[text, text])
    with pytest.raises(ConfigError, match="stands in a mixture"):
        build_source(dict(type="mixture", sources=[text, inner]))


def test_faults_of_a_source_are_named_with_its_place() -> None:
    sources = [dict(type="stdlib"), dict(type="csv", train="a.csv", captoin_key="c")]
    with pytest.raises((ConfigError, PluginError), match="captoin_key"):
        build_source(dict(type="mixture", sources=sources))
