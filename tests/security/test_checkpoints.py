"""Read weights of strangers as numbers: no object is made, and a header is not believed."""

from __future__ import annotations

import json
import os
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compt.errors import ConfigError
from compt.growth.stored import NotStreamed, StoredWeights
from compt.paradigms._checkpoints import copy_files, dtype_in_files
from compt.training.checkpoint import load_checkpoint
from compt.training.shards import read_shards
from compt.weights import load_state, load_weights, read_checkpoint, read_state

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "longer than the file": (2**40, b"{}"),
    "longer than any": (2**64 - 1, b"{}"),
    "none": (0, b""),
    "no JSON": None,
    "no object": [1],
    "too deep": "deep",
    "no tensor": {"a": 5},
    "a shape that is none": {"a": {**F32, "shape": [-1, -2]}},
    "a shape beyond 64 bits": {"a": {**F32, "shape": [2**40, 2**40]}},
    "another shape": {"a": {**F32, "shape": [3]}},
    "behind the end": {"a": {**F32, "data_offsets": [8, 2**50]}},
    "backwards": {"a": {**F32, "data_offsets": [8, 0]}},
    "over each other": {"a": F32, "b": {**F32, "data_offsets": [4, 12]}},
    "one within the other": {"a": F32, "b": F32},
    "an unknown format": {"a": {**F32, "dtype": "OS.SYSTEM"}},
    "a gap": {"a": F32, "b": {**F32, "data_offsets": [12, 20]}},
}


def safetensors(path, header, data: bytes = bytes(8)):
    """Write a file of this header, and of this length of it where it is a pair."""
    if isinstance(header, tuple):
        length, text = header
    elif header == "deep":
        text = b'{"a": ' + b"[" * 100_000
        length = len(text)
    else:
        text = b"{nothing" if header is None else json.dumps(header).encode()
        length = len(text)
    path.write_bytes(struct.pack("<Q", length) + text + data)
    return path


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_lie(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    file = safetensors(folder / "model.safetensors", HEADERS[kind])
    with pytest.raises(ConfigError, match="Cannot load the weights") as caught:
        read_state(file)
    assert str(file) in str(caught.value)
    with pytest.raises(NotStreamed, match=r"model\.safetensors"):
        StoredWeights(folder)
    assert dtype_in_files([file]) is None


def test_a_name_that_is_there_twice_is_one_tensor(tmp_path):
    twice = json.dumps({"a": F32})[:-1] + ", " + json.dumps({"a": {**F32, "shape": [1, 2]}})[1:]
    file = safetensors(tmp_path / "model.safetensors", (len(twice), twice.encode()))
    shapes = {tuple(read_state(file)["a"].shape), StoredWeights(tmp_path).shapes["a"]}
    assert len(shapes) == 1


@pytest.mark.parametrize("key", ["state_dict", "optimizer", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_not_made(tmp_path, trap, key, zipped):
    content = {key: trap.object, "model": {"a": torch.ones(1)}} if key else trap.object
    torch.save(content, file := tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConfigError, match="holds objects that are no tensors"):
        read_state(file)


def test_a_pickle_alone_is_not_read(tmp_path, trap):
    (tmp_path / "a.bin").write_bytes(trap.pickled())
    with pytest.raises(ConfigError):
        read_state(tmp_path / "a.bin")


def test_an_archive_that_unpacks_to_more_than_memory(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "large.pt")
    with (
        zipfile.ZipFile(tmp_path / "large.pt") as large,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in large.infolist():
            small.writestr(entry.filename, large.read(entry))
    assert (tmp_path / "small.pt").stat().st_size < 50_000
    with pytest.raises(ConfigError, match="unpacks to") as caught:
        read_checkpoint(tmp_path / "small.pt")
    assert "small.pt" in str(caught.value)
    assert read_checkpoint(tmp_path / "large.pt")["a"].numel() == 10**6


@pytest.mark.timeout(20)
def test_a_tensor_that_is_larger_than_its_file(tmp_path):
    """A view of one number has any shape in a few bytes; to look at its values takes for ever."""
    torch.save({"weight": torch.ones(1).expand(10**12), "bias": torch.ones(1)}, tmp_path / "a.pt")
    model = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="1000000000000"):
        load_weights(model, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="1000000000000"):
        load_state(model, read_state(tmp_path / "a.pt"), tmp_path)


def test_a_checkpoint_to_resume_from_makes_no_objects(tmp_path, trap):
    torch.save({"meta": trap.object}, tmp_path / "iter_00000001.pt")
    notes: list[str] = []
    assert load_checkpoint(tmp_path, notes.append) is None
    assert "iter_00000001.pt" in notes[0]


def test_torchs_pickled_metadata_beside_shards_is_not_read(tmp_path, trap):
    """Its own format of distributed checkpoints has a pickle in ``.metadata``."""
    (tmp_path / ".metadata").write_bytes(trap.pickled())
    save_file({"model.weight": torch.full((1, 1), 7.0)}, tmp_path / "a.safetensors")
    model = nn.Linear(1, 1, bias=False)
    said = {"model": ["weight"], "tied": [], "optimizer": []}
    checkpoint = {"state_dict": {}, "optimizer": {"state": {}}, "shards": said}
    read_shards(checkpoint, tmp_path, model, list(model.parameters()))
    assert checkpoint["state_dict"]["weight"].item() == 7


def test_what_is_carried_over_lies_in_the_folder(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in (source / "templates", tmp_path / "elsewhere", out):
        folder.mkdir(parents=True)
    (tmp_path / "elsewhere" / "secret").write_text("x")
    (tmp_path / "blob").write_text("{}")
    os.symlink(tmp_path / "blob", source / "tokenizer.json")  # as the Hub's cache has them
    os.symlink(tmp_path / "blob", source / "templates" / "a.jinja")
    os.symlink(tmp_path / "elsewhere", source / "chat_templates")
    os.symlink(tmp_path / "elsewhere", source / "templates" / "more")
    os.symlink("/dev/zero", source / "vocab.json")
    os.mkfifo(source / "templates" / "pipe")
    names = copy_files(source, out, ("*.json", "*templates"))
    assert names == ["templates", "tokenizer.json"]
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    assert written == ["templates", "templates/a.jinja", "tokenizer.json"]
