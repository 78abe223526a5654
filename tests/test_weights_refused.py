"""Files that are no weights, or damaged, or hold more than tensors: refused by name, and the model
stays as it was.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compt.weights import load_weights
from tests.test_weights import STATE, net, refused


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["w.pt", "legacy.pt", "w.safetensors"])
def test_a_file_cut_short_or_overwritten_is_refused(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=name == "w.pt")
    else:
        save_file(STATE, path)
    data, model = path.read_bytes(), net(2)
    load_weights(model, path)
    for length in (0, 1, 7, 8, 9, 50, 64, 300, len(data) // 2, len(data) - 400, len(data) - 4):
        path.write_bytes(data[:length])
        refused(model, path)
    random = np.random.default_rng(0)
    for _ in range(40):  # most of it is noise
        noise = random.integers(0, 256, len(data), dtype=np.uint8).tobytes()
        path.write_bytes(data[:16] + noise[16:])
        refused(model, path)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
@pytest.mark.parametrize(
    "content", [b"", b"to whom it may concern", b'{"a": 1}', b"PK\x03\x04", bytes(200)]
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(net(), tmp_path / name, "Cannot load the weights")


class Touches:
    """An object that makes a file where it is unpickled."""

    def __init__(self, path: Path, *, blocked: bool) -> None:
        self.call = (os.system, (f"touch {path}",)) if blocked else (open, (str(path), "w"))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("blocked", [False, True])
def test_objects_that_run_code_are_refused_and_not_run(tmp_path, blocked, legacy):
    trap = Touches(tmp_path / "trap", blocked=blocked)
    torch.save(
        {"state_dict": STATE, "x": trap},
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=not legacy,
    )
    refused(net(), tmp_path / "w.pt", r"no tensors \(.*(open|system)\)", "could run code")
    assert not (tmp_path / "trap").exists()
    torch.load(tmp_path / "w.pt", weights_only=False)  # the trap works
    assert (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "value", [argparse.Namespace(lr=0.1), np.ones(2), Path("x"), nn.Linear(1, 1)], ids=str
)
def test_other_objects_are_refused_by_name(tmp_path, value):
    torch.save({"model": STATE, "args": value}, tmp_path / "w.pt")
    what = refused(net(), tmp_path / "w.pt", r"no tensors \([\w.]+\)")
    assert "\n" not in what
    assert "\x1b" not in what


@pytest.mark.parametrize(
    "content", [5, None, [STATE], {}, dict(state_dict={}), dict(model=dict(lr=1)), torch.ones(3)]
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    refused(net(), tmp_path / "w.pt", "no state dict")


@pytest.mark.parametrize("name", ["gone.pt", "gone.safetensors", "gone/w.pt"])
def test_a_missing_file_is_named(tmp_path, name):
    refused(net(), tmp_path / name, "No such file")


@pytest.mark.parametrize("name", ["folder", "folder.pt", "folder.safetensors"])
def test_a_folder_is_no_file_of_weights(tmp_path, name):
    (tmp_path / name).mkdir()
    refused(net(), tmp_path / name, "Cannot load the weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path, value):
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    name = next(iter(state))
    state[name].view(-1)[-1] = value
    save_file(state, tmp_path / "weights.safetensors")
    refused(net(2), tmp_path / "weights.safetensors", rf"not finite.*{name}")


def test_large_finite_weights_are_not(tmp_path):
    state = {name: torch.full_like(tensor, 3e38) for name, tensor in STATE.items()}
    save_file(state, tmp_path / "weights.safetensors")
    load_weights(net(), tmp_path / "weights.safetensors")
