"""Files of weights: what is read, from whom, and that what is wrong is named and leaves the model
alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from compt.errors import ConfigError, TrainingError
from compt.testing.toy import ToyNet
from compt.weights import load_state, load_weights, read_state, save_weights, saving


class Tied(nn.Module):
    """An embedding whose weight is the head's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
        self.head.weight = self.embed.weight
        self.register_buffer("count", torch.zeros(1))


def net(seed: int = 0, width: int = 8, depth: int = 1) -> ToyNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ToyNet(width, depth)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(model: nn.Module, path: Path, *patterns: str) -> str:
    """Loading is refused with a message that names the file, and the model stays as it was."""
    before = copied(model)
    with pytest.raises(ConfigError) as caught:
        load_weights(model, path)
    assert equal(model.state_dict(), before)
    assert str(path) in caught.value.what
    for pattern in patterns:
        assert re.search(pattern, caught.value.what), (pattern, caught.value.what)
    return caught.value.what


# What trainers write

STATE = net(1).state_dict()
MORE = dict(
    epoch=3,
    name="run",
    optimizer=dict(state={0: dict(step=torch.ones(1))}, param_groups=[dict(lr=0.1)]),
)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


CONTENTS = {
    "a state dict": STATE,
    "under state_dict": {**MORE, "state_dict": STATE},
    "under model": {**MORE, "model": STATE},
    "under module": {**MORE, "module": STATE},
    "under state_dict, with the model's config": {"model": dict(width=8), "state_dict": STATE},
    "distributed": {**MORE, "state_dict": prefixed("module.")},
    "compiled": prefixed("_orig_mod."),
    "compiled, then distributed": dict(model=prefixed("module._orig_mod.")),
    "distributed, then compiled": dict(model=prefixed("_orig_mod.module.")),
    "with what is no tensor": {**STATE, "_metadata": "x", "step": 3},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_checkpoints_of_trainers_are_read(tmp_path, name, legacy):
    path = tmp_path / "checkpoint.pt"
    torch.save(CONTENTS[name], path, _use_new_zipfile_serialization=not legacy)
    assert equal(read_state(path), STATE)
    model = net(2)
    load_weights(model, path)
    assert equal(model.state_dict(), STATE)


@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin", "weights.pth", "weights"])
def test_any_name_but_safetensors_is_torchs(tmp_path, name):
    torch.save(STATE, tmp_path / name)
    assert equal(read_state(tmp_path / name), STATE)


def test_safetensors_are_read_and_written(tmp_path):
    path = tmp_path / "weights.safetensors"
    digest = save_weights(net(1), path)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    model = net(2)
    load_weights(model, path)
    assert equal(model.state_dict(), STATE)


def test_a_prefix_that_only_some_names_have_is_a_name(tmp_path):
    torch.save({**prefixed("module."), "extra": torch.ones(1)}, tmp_path / "w.pt")
    assert set(read_state(tmp_path / "w.pt")) == {*prefixed("module."), "extra"}


def test_half_precision_is_loaded_in_the_models_own(tmp_path):
    save_file({name: value.bfloat16() for name, value in STATE.items()}, tmp_path / "w.safetensors")
    model = net(2)
    load_weights(model, tmp_path / "w.safetensors")
    assert equal(
        model.state_dict(), {name: value.bfloat16().float() for name, value in STATE.items()}
    )


def test_parameters_stay_the_same_objects_and_trainable(tmp_path):
    """An optimizer that has them goes on with them."""
    save_weights(net(1), tmp_path / "w.safetensors")
    model = net(2)
    before = {name: id(p) for name, p in model.named_parameters()}
    load_weights(model, tmp_path / "w.safetensors")
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_a_buffer_that_is_no_number_is_loaded_as_it_is():
    """As masks of minus infinity are."""
    model, state = Tied(), Tied().state_dict()
    state["count"].fill_(-float("inf"))
    load_state(model, state, Path("w"))
    assert model.count.isinf().all()


# Tied tensors


@pytest.mark.parametrize(
    "names", [("embed.weight",), ("head.weight",), ("embed.weight", "head.weight")]
)
def test_tied_tensors_may_be_under_any_of_their_names(names):
    model, weight = Tied(), torch.randn(5, 3)
    state = {**dict.fromkeys(names, weight), "head.bias": torch.ones(5), "count": torch.ones(1)}
    load_state(model, {name: value.clone() for name, value in state.items()}, Path("w"))
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.embed.weight, weight)
    assert torch.equal(model.count, torch.ones(1))


def test_tied_tensors_that_differ_are_refused(tmp_path):
    model = Tied()
    state = {**copied(model), "head.weight": torch.ones(5, 3)}
    torch.save(state, tmp_path / "w.pt")
    what = refused(model, tmp_path / "w.pt", r"'head\.weight' and 'embed\.weight' differ in it")
    assert what.count("differ in it") == 1


def test_a_model_that_ties_is_saved_and_read(tmp_path):
    one, two = Tied(), Tied()
    save_weights(one, tmp_path / "w.safetensors")
    assert len(read_state(tmp_path / "w.safetensors")) == 3
    load_weights(two, tmp_path / "w.safetensors")
    assert equal(two.state_dict(), one.state_dict())


class ManyTies(nn.Module):
    """Five layers that share their weights with another each."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(5):
            one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            other.weight = one.weight
            self.add_module(f"one{number}", one)
            self.add_module(f"other{number}", other)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    model = ManyTies()
    assert len({save_weights(model, tmp_path / f"{i}.safetensors") for i in range(6)}) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert len(file.metadata()) == 5
    again = ManyTies()
    load_weights(again, tmp_path / "0.safetensors")
    assert equal(again.state_dict(), model.state_dict())


def test_a_tied_tensor_under_no_name_is_missing(tmp_path):
    torch.save({"head.bias": torch.ones(5), "count": torch.ones(1)}, tmp_path / "w.pt")
    refused(Tied(), tmp_path / "w.pt", r"lacks 'embed\.weight'")


# Another model's


def test_missing_unknown_and_other_shapes_are_named(tmp_path):
    state = copied(net(1))
    state["blocks.0.fc3.bias"] = state.pop("blocks.0.fc1.bias")
    state["head.bias"] = torch.ones(11)
    torch.save(state, tmp_path / "w.pt")
    what = refused(
        net(2),
        tmp_path / "w.pt",
        r"it lacks 'blocks\.0\.fc1\.bias'",
        r"'blocks\.0\.fc3\.bias' is unknown to the model",
        r"'head\.bias' is \[11\] in it and \[10\] in the model",
    )
    assert what.count("'") == 2 + 3 * 2
    assert "more" not in what


def test_a_bias_of_one_is_not_spread_over_many(tmp_path):
    torch.save({**STATE, "head.bias": torch.ones(1)}, tmp_path / "w.pt")
    refused(net(2), tmp_path / "w.pt", r"'head\.bias' is \[1\] in it and \[10\]")


@pytest.mark.parametrize(("width", "depth"), [(16, 1), (8, 4), (16, 4)])
def test_of_many_faults_a_few_are_named_and_the_rest_counted(tmp_path, width, depth):
    torch.save(net(1, width, depth).state_dict(), tmp_path / "w.pt")
    what = refused(net(2), tmp_path / "w.pt", r"not of this model: ", r", and \d+ more\.$")
    assert what.count("'") == 2 + 4 * 2
    assert what.count(";") == 3


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (RuntimeError("[enforce fail] . unexpected pos 576 vs 534"), TrainingError, "Make room"),
        (SafetensorError("I/O error: No space left (os error 28)"), TrainingError, "Make room"),
        (RuntimeError("CUDA out of memory"), RuntimeError, "^CUDA out of memory$"),
    ],
)
def test_only_what_the_system_refuses_is_told_as_a_full_disk(tmp_path, error, raised, text):
    with pytest.raises(raised, match=text), saving(tmp_path / "weights.pt"):
        raise error
    assert not list(tmp_path.iterdir())
