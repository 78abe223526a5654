"""Build a StageModel from a seed, or from weights."""

from __future__ import annotations

import pytest
import torch

from compt.growth.models import build_member
from compt.interfaces import Member
from compt.registry import PARADIGMS
from compt.testing.toy import ToyNet
from compt.weights import save_weights
from tests.training.conftest import at, net, recorded


def test_fresh_weights_depend_on_the_seed_alone():
    paradigm, member = PARADIGMS.build(dict(type="toy")), Member("a", dict(width=16, depth=2))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    model = build_member(paradigm, member, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = (build_member(paradigm, member, seed=seed) for seed in (7, 8))
    weights, same_weights = model.state_dict(), again.state_dict()
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert not torch.equal(model.embed.weight, other.embed.weight)


def test_a_stage_is_built_the_same_under_any_random_state(make):
    """Both student and projection heads.

    The dropout of trial runs may not disturb the global state either.
    """
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        random_state = torch.get_rng_state()
        states.append(make(dropout=0.5, seed=3).state_dict())
        assert torch.equal(torch.get_rng_state(), random_state)
    assert "transfer.heads.features.weight" in states[0]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    other = make(dropout=0.5, seed=4).state_dict()
    assert not torch.equal(
        states[0]["transfer.heads.features.weight"], other["transfer.heads.features.weight"]
    )
    assert not torch.equal(states[0]["student.embed.weight"], other["student.embed.weight"])


def test_weights_of_init_stay_as_they_are(make, tmp_path):
    """Neither building the stage nor the Runner's init_weights changes them."""
    grown = net(16, 2)
    save_weights(grown, tmp_path / "grown.safetensors")
    stage = make((16, 2), (8, 1), init=str(tmp_path / "grown.safetensors"))
    stage.init_weights()
    assert all(torch.equal(v, grown.state_dict()[k]) for k, v in stage.student.state_dict().items())


class RunningNet(ToyNet):
    """A ToyNet that remembers the mean of what it has seen, as a BatchNorm does."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("seen", torch.zeros(1))

    def features(self, x):
        if self.training:
            self.seen += 1
        return super().features(x)


def test_binding_leaves_running_statistics_alone(make, monkeypatch):
    from compt.testing import toy

    monkeypatch.setattr(
        toy.ToyLayout, "patterns", {**toy.ToyLayout.patterns, "seen": "constant: 1"}
    )
    monkeypatch.setattr(toy.Toy, "build_model", lambda self, member: RunningNet(**member.model))
    monkeypatch.setattr("compt.training.stage.load_weights", lambda model, path: None)
    stage = make()
    assert stage.student.training
    assert stage.student.seen.item() == 0, "the student was trained on an example batch"


# Noise


def test_teacher_and_student_see_the_same_noise(make, batch):
    stage = make()
    seen = recorded(stage)
    for iteration in (0, 1, 0):
        at(stage, iteration)(mode="loss", **batch)
    for student, teacher in zip(seen.student, seen.teacher):
        assert torch.equal(student["x"], teacher["x"])
        assert not torch.equal(student["x"], batch["x"])
    first, second, again = (b["x"] for b in seen.student)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert (first - batch["x"]).std().item() == pytest.approx(0.05, rel=0.5)


def test_noise_depends_on_seed_and_iteration_not_on_the_global_state(make, batch):
    stages = [make(seed=0), make(seed=0), make(seed=1)]
    drawn = []
    for i, stage in enumerate(stages):
        torch.manual_seed(i)
        seen = recorded(at(stage, 4))
        stage(mode="loss", **batch)
        drawn.append(seen.student[0]["x"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
