"""Buffers of several processes come together as their rules say."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import compt
from compt.errors import PluginError
from compt.interfaces import accepted, may_omit, ruled_buffers
from tests.training.test_distributed import two_processes

SCRIPT = '''
"""Give each process buffers of its own, and save what they are after a step."""
import sys
import warnings

import tests.training.self_taught
import torch
from compt.training.buffers import unite
from compt.training.distributed import start
from compt.training.stage import StageModel
from torch import nn

start("pytorch")
rank = torch.distributed.get_rank()
stage = StageModel(dict(type="self_taught"), dict(name="m", model=dict(width=8, depth=1)))
model = stage.student
stage.paradigm.after_step = lambda model: None
with torch.no_grad():
    for tensor in (model.centre, model.num_steps, model.queue, *model.average.parameters()):
        tensor.fill_(rank + 1)
    model.student.head.bias.fill_(rank + 1)
stage.transfer = nn.Module()
stage.transfer.register_buffer("means", torch.full((3,), float(rank)))
stage._transfer_rules = {"means": "max"}
stage.after_step()
assert (model.queue == 1).all()

formats = nn.Module()
formats.inner = nn.Module()
formats.inner.register_buffer("seen", torch.tensor([False, rank == 1]))
formats.register_buffer("narrow", torch.full((2,), rank + 1.0, dtype=torch.bfloat16))
formats.register_buffer("least", torch.tensor(rank + 1))
formats.register_buffer("crossed", torch.full((3, 2), float(rank)).T)
rules = {"inner.seen": "max", "narrow": "mean", "least": "min", "crossed": "mean"}
unite(formats, rules)
model.average.head.bias.data.fill_(rank)
stage._student_rules = {"centre": "mean"}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    stage.warn_of_differences()
    model.queue.fill_(rank)
    stage.warn_of_differences()
said = {"warnings": [str(warning.message) for warning in caught]}
modules = (model, formats, stage.transfer)
state = {name: tensor for module in modules for name, tensor in module.state_dict().items()}
torch.save({**state, **said}, f"{sys.argv[1]}_{rank}.pt")
'''


def test_all_processes_hold_the_same(tmp_path):
    (tmp_path / "buffers.py").write_text(SCRIPT)
    for done in two_processes("buffers.py", "end", cwd=tmp_path):
        assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        state = torch.load(tmp_path / f"end_{rank}.pt")
        assert (state["centre"] == 1.5).all()
        assert state["num_steps"] == 2
        assert (state["queue"] == rank).all()
        assert (state["average.head.weight"] == 1).all()
        assert (state["student.head.bias"] == rank + 1).all(), "what is trained is left alone"
        assert state["means"].tolist() == [1, 1, 1]
        assert state["inner.seen"].tolist() == [False, True]
        assert state["narrow"].tolist() == [1.5, 1.5]
        assert state["narrow"].dtype is torch.bfloat16
        assert state["least"] == 1
        assert (state["crossed"] == 0.5).all()
        # what differs without a rule is said once, by the first process
        assert len(state["warnings"]) == (rank == 0)
        assert all("1 of the buffers" in text for text in state["warnings"])
        assert all("average.head.bias" in text for text in state["warnings"])


def net() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    return net


def test_rules_are_by_name_or_pattern():
    rules = {"1.running_mean": "first", "*.running_*": "mean", "0.*": "max", "*.missing": "min"}
    assert ruled_buffers(rules, net(), "Mine") == {
        "1.running_mean": "first",
        "1.running_var": "mean",
        "2.running_mean": "mean",
        "2.running_var": "mean",
        "0.bias": "max",
    }
    assert ruled_buffers({}, net(), "Mine") == {}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"1.running_mean": "sum"}, "has the rule 'sum'"),
        ({"1.running_mean": "means"}, "Did you mean 'mean'"),
        ({"1.running_mean": None}, "has the rule None"),
        ({"1.mean": "mean"}, "names '1.mean'"),
        ({"0.weight": "mean"}, "names '0.weight'"),
        ({"": "mean"}, "names ''"),
        (["1.running_mean"], "buffer_rules is"),
        (None, "buffer_rules is None"),
        ({"*.num_batches_tracked": "mean"}, "the mean of '1.num_batches_tracked'"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules, words):
    with pytest.raises(PluginError, match=words) as caught:
        ruled_buffers(rules, net(), "Mine")
    assert "Mine.buffer_rules" in str(caught.value)
    assert caught.value.do


# What a method takes


def nothing(): ...
def by_name(*, batch): ...
def by_position(batch, progress): ...
def everything(**others): ...
def not_by_name(batch, /): ...


class Methods:
    """Methods of all sorts, each of which takes a batch and not the progress."""

    @torch.no_grad()
    def decorated(self, *, batch): ...

    @classmethod
    def of_class(cls, batch): ...

    @staticmethod
    def static(batch): ...

    def __call__(self, *, batch): ...

    partial = functools.partial(by_position, progress=0)


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (nothing, set()),
        (by_name, {"batch"}),
        (by_position, {"batch", "progress"}),
        (everything, {"batch", "progress"}),
        (not_by_name, set()),
    ],
)
def test_a_method_is_given_what_it_takes(method, names):
    assert accepted(method, batch=1, progress=2).keys() == names


@pytest.mark.parametrize("name", ["decorated", "of_class", "static", "__call__"])
def test_it_is_so_however_a_method_is_defined(name):
    assert accepted(getattr(Methods(), name), batch=1, progress=2) == {"batch": 1}
    assert accepted(Methods(), batch=1, progress=2) == {"batch": 1}
    assert accepted(Methods.partial, batch=1) == {"batch": 1}


def test_what_may_be_omitted_is_marked():
    @may_omit("batch")
    def method(*, batch): ...

    assert method.may_omit == {"batch"}
    assert compt.Paradigm.after_step.may_omit == {"outputs", "batch", "progress"}
    assert compt.Paradigm.metrics.__isabstractmethod__
