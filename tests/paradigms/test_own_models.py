"""Hold modules that no library saves to what is written beside them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from compt.errors import ConfigError
from compt.interfaces import Member
from compt.paradigms.own_models import OwnModels


class Sums(OwnModels):
    """Linear layers, whose outputs are as many as the paradigm says."""

    outputs = frozenset({"sum"})
    file_name, settings = "sums", ("sizes",)

    def __init__(self, sizes=(2, 3)):
        self.sizes = sizes

    def build_net(self, name, *, width, bias=True):
        if width == 13:
            raise ConfigError(f"Member '{name}' brings bad luck.")
        return nn.Linear(width, sum(self.sizes), bias=bias)

    def build_dataset(self, split): ...

    def forward(self, model, batch): ...

    def loss(self, outputs, batch): ...

    def metrics(self, model, split, batches): ...


def made(paradigm, **config):
    return paradigm.build_model(Member("a", config))


def exported(folder):
    paradigm = Sums(sizes=(1, 6))
    model = made(paradigm, width=4, bias=False)
    paradigm.export(model, folder)
    return model


def test_what_is_written_is_what_is_loaded(tmp_path):
    model, paradigm = exported(tmp_path), Sums()
    content = json.loads((tmp_path / "sums.json").read_text())
    assert content == {"model": {"width": 4, "bias": False}, "sizes": [1, 6]}
    assert paradigm.recognises(tmp_path) and not paradigm.recognises(tmp_path / "sums.json")
    again = paradigm.load(tmp_path)
    assert torch.equal(again.weight, model.weight) and again.bias is None


def test_a_paradigm_takes_the_settings_of_what_it_loads_first(tmp_path):
    """So that a model to grow into has them too."""
    exported(tmp_path)
    paradigm = Sums()
    paradigm.load(tmp_path)
    assert paradigm.sizes == (1, 6) and made(paradigm, width=8).out_features == 7


def test_members_that_are_built_keep_the_settings(tmp_path):
    """A chain's paradigm that starts from other weights is not changed by them."""
    exported(tmp_path)
    paradigm = Sums()
    made(paradigm, width=4)
    assert paradigm.load(tmp_path).out_features == 7
    assert paradigm.sizes == (2, 3)


def test_a_member_may_be_a_folder_and_gets_fresh_weights(tmp_path):
    model = exported(tmp_path)
    fresh = Sums(sizes=(1, 6)).build_model(Member("b", str(tmp_path)))
    assert fresh.weight.shape == model.weight.shape
    assert not torch.equal(fresh.weight, model.weight)
    assert fresh.member_config == {"width": 4, "bias": False}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(widht=3), "member 'a' cannot be: TypeError.*widht"),
        (dict(width=-1), "member 'a' cannot be: RuntimeError"),
        (dict(width=13), "^Member 'a' brings bad luck"),
        ("nowhere", "'nowhere': no dict, and no folder of sums.json"),
        (None, "None: no dict"),
    ],
)
def test_what_cannot_be_built_names_the_member(model, message):
    with pytest.raises(ConfigError, match=message):
        Sums().build_model(Member("a", model))


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', '{"sizes": [1]}'])
def test_a_damaged_config_is_named(content, tmp_path):
    exported(tmp_path)
    (tmp_path / "sums.json").write_text(content)
    paradigm = Sums()
    with pytest.raises(ConfigError, match=r"sums\.json' cannot be read"):
        paradigm.load(tmp_path)
    assert paradigm.sizes == (2, 3)


def test_other_weights_are_refused(tmp_path):
    exported(tmp_path)
    other = Sums(sizes=(5, 6))
    (tmp_path / "other").mkdir()
    other.export(made(other, width=4, bias=False), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "sums.safetensors", tmp_path)
    with pytest.raises(ConfigError, match="weight"):
        Sums().load(tmp_path)
