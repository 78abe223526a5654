"""A chain's weights grown from file to file: the bytes of growth in memory, and its report."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import compt
from compt.errors import ConfigError, TrainingError
from compt.files import read_json
from compt.growth import outlines, streamed
from compt.growth.inherited import finish_growth
from compt.growth.models import build_member
from compt.growth.run import grow
from compt.growth.stored import NotStreamed, without_values
from compt.growth.streamed import grow_file
from compt.interfaces import Member, Paradigm
from compt.report.format import growth_text
from compt.report.growth import GrowthReport
from compt.testing.toy import TiedNet, Toy
from compt.training import initial_weights
from compt.weights import save_weights

SMALL, LARGE = dict(width=8, depth=1), dict(width=20, depth=2)


class TiedToy(Toy):
    """Toys whose head is their embedding."""

    def build_model(self, member: Member) -> TiedNet:
        return TiedNet(**member.model)


@pytest.fixture(autouse=True)
def small_tensors(monkeypatch) -> None:
    """Tensors of a few hundred bytes count as large."""
    monkeypatch.setattr(outlines, "LARGE", 256)


def grown(
    folder: Path, paradigm: Paradigm, models: tuple[Any, Any], **options: Any
) -> tuple[Path, dict[str, Any]]:
    """The file that is grown from a smaller model's, and the report."""
    build_source, build = (
        partial(build_member, paradigm, Member(name, model), seed=seed)
        for name, model, seed in zip("ab", models, (0, 7), strict=True)
    )
    options = {"seed": 7, "stream_from": 0, **options}
    grower = options.pop("grower", "lossless")
    weights, out = folder / "a.safetensors", folder / "b.safetensors"
    if not weights.exists():
        save_weights(build_source(), weights)
    growth = grow_file(paradigm, grower, build_source, weights, build, out, **options)
    return out, growth.to_dict()


def clip() -> tuple[Paradigm, tuple[Any, Any]]:
    pytest.importorskip("open_clip")
    from compt.paradigms.clip import Clip
    from tests.cli.test_grow_formats import clip_model

    return Clip(), (clip_model(32, 2), clip_model(64, 3))


def masked() -> tuple[Paradigm, tuple[Any, Any]]:
    pytest.importorskip("mmpretrain")
    from compt.paradigms.mae import Mae
    from tests.paradigms.mae_models import mae

    return Mae(), (mae(32, 2), mae(64, 3))


@pytest.mark.parametrize(
    "family",
    [lambda: (Toy(), (SMALL, LARGE)), lambda: (TiedToy(), (SMALL, LARGE)), clip, masked],
    ids=["toy", "tied", "clip", "mae"],
)
def test_the_bytes_and_the_report_are_those_of_growth_in_memory(tmp_path, family):
    paradigm, models = family()
    out, report = grown(tmp_path, paradigm, models)
    small, large = (
        build_member(paradigm, Member(name, model), seed=seed)
        for name, model, seed in zip("ab", models, (0, 7), strict=True)
    )
    growth = grow(small, large, "lossless", seed=7)
    growth, _ = finish_growth(paradigm, small, large, growth, seed=7)
    save_weights(large, tmp_path / "whole.safetensors")
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert report == growth.to_dict()
    assert report["function_preserving"] and report["error"] < 1e-5
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.safetensors", "b.safetensors", "whole.safetensors"}


class Resetting(Toy):
    """Toys of which nothing but the head's bias is kept."""

    def after_growth(self, model: torch.nn.Module) -> None:
        model.head.bias.requires_grad_(False).zero_()


@pytest.mark.parametrize(
    ("paradigm", "grower", "stream_from", "reason"),
    [
        (Toy(), "scratch", 0, "Scratch works on whole models"),
        (Resetting(), "lossless", 0, "Resetting sets what must not be inherited"),
        (Toy(), "lossless", 10**9, "^$"),
    ],
)
def test_what_needs_whole_models_is_refused_before_a_file_is_there(
    tmp_path, paradigm, grower, stream_from, reason
):
    with pytest.raises(NotStreamed, match=reason):
        grown(tmp_path, paradigm, (SMALL, LARGE), grower=grower, stream_from=stream_from)
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors"}


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = Toy().build_model(Member("a", SMALL))
    model.head.weight.data[3, 3] = float("inf")
    save_weights(model, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"not finite.*head\.weight"):
        grown(tmp_path, Toy(), (SMALL, LARGE))
    assert not (tmp_path / "b.safetensors").exists()


def test_a_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streamed.FilledFiles, "fill", full)
    with pytest.raises(TrainingError, match="No space left"):
        grown(tmp_path, Toy(), (SMALL, LARGE))
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors"}


def test_other_threads_write_values_while_a_file_is_laid_out(tmp_path):
    tensors = {"a": torch.arange(1000.0)}
    with without_values(), ThreadPoolExecutor(1) as pool:
        pool.submit(save_file, tensors, tmp_path / "other.safetensors").result()
        save_file(tensors, tmp_path / "own.safetensors")
    save_file(tensors, tmp_path / "after.safetensors")
    own, other, after = (tmp_path / f"{n}.safetensors" for n in ("own", "other", "after"))
    assert other.read_bytes() == after.read_bytes()
    assert own.stat().st_size == after.stat().st_size
    assert torch.equal(load_file(own)["a"], torch.zeros(1000))


def chain_of_two(toy: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    """The report of a chain's growth, in a folder of its own."""
    config = copy.deepcopy({**toy, "chain": toy["chain"][:2], **options})
    for member in config["chain"]:
        member["iters"] = 2
    compt.train(config, work_dir=folder)
    return read_json(folder / "02_b" / "growth.json")


def test_a_chain_hands_large_weights_on_from_file_to_file(toy, tmp_path, monkeypatch):
    whole = chain_of_two(toy, tmp_path / "whole")
    monkeypatch.setattr(initial_weights, "STREAM_FROM", 0)
    monkeypatch.setattr(initial_weights, "hand_over_weights", lambda *_: pytest.fail("in memory"))
    streamed_it = chain_of_two(toy, tmp_path / "streamed")
    assert [report.pop("seconds") > 0 for report in (whole, streamed_it)] == [True, True]
    assert streamed_it == whole  # with the hash of the grown weights
    assert whole["files"]["grown.safetensors"]


def test_a_chain_says_why_a_large_model_was_in_memory(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(initial_weights, "STREAM_FROM", 0)
    report = chain_of_two(toy, tmp_path / "run", grown=dict(optimizer_state=True))
    words = "what the optimizer has to know of it is made of whole models (the grown model takes"
    assert report["growth"]["held_whole"].startswith(words)
    text = growth_text(GrowthReport.from_json(report["growth"]))
    assert f"; grown in memory as a whole: {words} 0.0 GB)" in text
