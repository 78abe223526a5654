"""Weights in shards: a chain that hands them on is the one that hands on single files."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import compt
from compt.errors import ConfigError, TrainingError, WorkDirError
from compt.files import check_recorded, read_json
from compt.growth import outlines
from compt.growth.stored import StoredWeights
from compt.shards import tensor_files, weight_files, weights_of
from compt.testing.toy import TiedNet, ToyNet
from compt.training import initial_weights
from compt.weights import hand_over_weights, load_weights, read_state, save_weights
from tests.conftest import TOY

LIMIT = 5000
"""Bytes of a shard: the first member has one file of weights, the others several."""
STAGES = ("01_a", "02_b", "03_c")
CHAIN: dict[str, Any] = TOY | dict(
    chain=[member | dict(iters=3) for member in TOY["chain"]],
    param_scheduler=[dict(type="LinearLR", start_factor=1, end_factor=0.1, begin=0.4, end=1.0)],
    trunk=True,
    evaluations=1,
)


class Died(BaseException):
    """The process is gone."""


def train(folder: Path, config: dict[str, Any] = CHAIN, **options: Any) -> Path:
    return compt.train(copy.deepcopy(config), work_dir=folder, **options)


def state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of weights, each checked to be where the index says."""
    index = path.with_name(f"{path.name}.index.json")
    tensors: dict[str, torch.Tensor] = {}
    for name, file in json.loads(index.read_text())["weight_map"].items():
        with safe_open(path.with_name(file), "pt") as opened:
            tensors[name] = opened.get_tensor(name)
    return tensors


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Path]:
    """A chain in shards, grown tensor by tensor and killed as its second stage hands them on."""
    folder = tmp_path_factory.mktemp("shards") / "run"
    replace = os.replace

    def dying(source, target) -> None:
        if str(target).endswith("02_b/weights-00002-of-00003.safetensors"):
            raise Died
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compt.weights.MAX_SHARD", LIMIT)
        patch.setattr(initial_weights, "STREAM_FROM", 0)
        patch.setattr(outlines, "LARGE", 256)
        patch.setattr(initial_weights, "hand_over_weights", lambda *_: pytest.fail("in memory"))
        patch.setattr(os, "replace", dying)
        with pytest.raises(Died):
            train(folder)
        patch.setattr(os, "replace", replace)
        train(folder, resume=True)
    return folder


@pytest.fixture
def stage(run, tmp_path) -> Path:
    """A copy of the second stage, which is in shards."""
    return Path(shutil.copytree(run / "02_b", tmp_path / "02_b"))


def test_its_tensors_are_those_of_the_chain_in_single_files(whole, run):
    assert [len(weight_files(run / stage / "weights.safetensors")) for stage in STAGES] == [1, 4, 9]
    for name in ("01_a/weights.safetensors", "01_a/plateau.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    for stage in STAGES[1:]:
        for name in ("grown.safetensors", "plateau.safetensors", "weights.safetensors"):
            assert same(state(run / stage / name), load_file(whole / stage / name)), (stage, name)
            assert not (run / stage / name).exists()
    large = [p for p in run.glob("0[23]*/*-of-*.safetensors") if p.stat().st_size > LIMIT + 2000]
    for path in large:  # a tensor is in one file, however large
        with safe_open(path, "pt") as file:
            assert len(file.keys()) == 1, path
    assert not list(run.rglob("*.tmp"))


def test_records_have_the_hash_of_every_file(run):
    manifest = read_json(run / "02_b" / "manifest.json")
    assert manifest["weights"]["file"] == "weights.safetensors.index.json"
    shards = {path.name for path in (run / "02_b").glob("*-of-*.safetensors")}
    named = {*manifest["files"], *read_json(run / "02_b" / "growth.json")["files"]}
    assert shards < named and "plateau.safetensors.index.json" in named


@pytest.mark.parametrize("damage", ["cut", "missing"])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("weights", "weights-00002-of-00003.safetensors"),
        ("weights", "weights-00003-of-00003.safetensors"),
        ("weights", "weights.safetensors.index.json"),
        ("plateau", "plateau-00001-of-00003.safetensors"),
    ],
)
def test_a_damaged_file_is_named_with_advice(stage, name, file, damage):
    path = stage / f"{name}.safetensors"
    check_recorded(path)
    if damage == "missing":
        (stage / file).unlink()
    else:
        (stage / file).write_bytes((stage / file).read_bytes()[:-9])
    why = "it is missing" if damage == "missing" else "its SHA-256 is not the recorded one"
    with pytest.raises(WorkDirError, match=f"'{file}' is damaged: {why}") as error:
        check_recorded(path)
    assert "--from-stage b" in error.value.do
    with pytest.raises(WorkDirError, match=file):
        check_recorded(stage)
    if "-of-" in file:
        with pytest.raises(ConfigError, match=file):
            read_state(path)
    others = {"weights", "plateau"} - {name}
    check_recorded(stage / f"{others.pop()}.safetensors")


def test_another_chain_starts_from_a_stage_in_shards(stage, tmp_path, monkeypatch):
    """Without its export; and the next member is grown from them as a whole."""
    shutil.rmtree(stage / "export")
    monkeypatch.setattr("compt.weights.MAX_SHARD", LIMIT)
    given = dict(CHAIN["chain"][1], init=str(stage), iters=0)
    run = train(tmp_path / "run", CHAIN | dict(chain=[given, CHAIN["chain"][2]]))
    for name in ("weights.safetensors", "plateau.safetensors"):
        assert same(state(run / "01_b" / name), state(stage / name))
    source, grown = ToyNet(16, 2).eval(), ToyNet(24, 3).eval()
    load_weights(source, stage / "plateau.safetensors")
    load_weights(grown, run / "02_c" / "grown.safetensors")
    points = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grown(points), source(points), atol=1e-5)


def test_a_write_that_ends_early_leaves_the_weights_that_were_there(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    hand_over_weights(ToyNet(8, 1), path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("compt.weights._order_metadata", full)
        with pytest.raises(TrainingError, match=r"weights\.safetensors.*No space left"):
            hand_over_weights(ToyNet(8, 2), path, max_shard_size=500)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_what_a_name_stood_for_before_goes(tmp_path):
    path, model = tmp_path / "weights.safetensors", ToyNet(8, 2)
    (tmp_path / "grown-00001-of-00002.safetensors").write_text("of others")
    for limit in (500, 10**6, 1000, 2000):
        files = hand_over_weights(model, path, max_shard_size=limit)
        left = {file.name for file in tmp_path.iterdir()} - {"grown-00001-of-00002.safetensors"}
        assert left == {file.name for file in files}
        assert same(read_state(path), dict(model.state_dict()))
        assert same(dict(StoredWeights(path)), dict(model.state_dict()))
        assert {*tensor_files(path)} == {*files} - {tmp_path / "weights.safetensors.index.json"}
    assert same(read_state(files[0]), dict(model.state_dict()))  # by its index too
    assert files == [path] or all(weights_of(file) == path for file in files)


def test_tied_tensors_are_written_once_and_the_bytes_repeat(tmp_path):
    model = TiedNet(8, 2)
    save_weights(model, tmp_path / "one.safetensors")
    written = []
    for name in "ab":
        path = tmp_path / name / "weights.safetensors"
        files = hand_over_weights(model, path, max_shard_size=1)
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]
    assert same(read_state(path), load_file(tmp_path / "one.safetensors"))
    other = TiedNet(8, 2)
    load_weights(other, path)
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_a_file_with_a_shards_name_is_read_alone(tmp_path):
    """As one may be given, beside another file or the index."""
    files = hand_over_weights(ToyNet(8, 1), tmp_path / "w.safetensors", max_shard_size=500)
    assert same(read_state(files[2]), load_file(files[2]))
    save_weights(ToyNet(8, 1), tmp_path / "w.safetensors")
    assert same(read_state(files[2]), load_file(files[2]))
