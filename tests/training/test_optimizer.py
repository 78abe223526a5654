"""Train a StageModel, and look at what its optimizer, checkpoint and export hold."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from compt.testing.toy import ToyNet
from tests.training.conftest import optimizer


def test_the_checkpoint_holds_student_and_heads_alone(make):
    stage = make((16, 2), (8, 1))
    expected = {f"student.{name}" for name in ToyNet(16, 2).state_dict()} | {
        "transfer.heads.features.weight"
    }
    assert set(stage.state_dict()) == expected
    assert {name for name, _ in stage.named_parameters()} == expected
    assert stage.transfer.heads["features"].weight.shape == (8, 16)


def test_equal_widths_need_no_head(make):
    assert set(make((16, 2), (16, 1)).state_dict()) == {
        f"student.{name}" for name in ToyNet(16, 2).state_dict()
    }


def test_a_checkpoint_brings_the_heads_back(make, batch):
    stage, other = make(seed=0), make(seed=5)
    optimizer(stage)
    stage.train_step(batch, optimizer(stage))
    other.load_state_dict(stage.state_dict())
    other.seed = stage.seed
    losses, restored = (s.eval()(mode="loss", **batch) for s in (stage, other))
    assert losses.keys() == restored.keys()
    assert all(torch.equal(losses[name], restored[name]) for name in losses)


def test_the_export_is_the_unmodified_student(make, batch, tmp_path):
    stage = make((16, 2), (8, 1))
    stage.train_step(batch, optimizer(stage))
    (tmp_path / "export").mkdir()
    stage.paradigm.export(stage.student, tmp_path / "export")
    state = load_file(tmp_path / "export" / "toy.safetensors")
    plain = ToyNet(16, 2)
    plain.load_state_dict(state, strict=True)
    assert all(torch.equal(v, stage.student.state_dict()[k]) for k, v in plain.state_dict().items())


def test_the_optimizer_has_every_trainable_parameter_once(make):
    """Matrices decay, and gains and biases do not.

    The head is a matrix. The teacher and what is frozen stay out.
    """
    stage = make((16, 2), (8, 1))
    stage.student.embed.requires_grad_(False)
    decayed, plain = optimizer(stage).optimizer.param_groups
    names = {id(p): name for name, p in stage.named_parameters() if p.requires_grad}
    matrix_names, vector_names = (
        [names[id(p)] for p in group["params"]] for group in (decayed, plain)
    )
    matrices = {"student.head.weight", "transfer.heads.features.weight"}
    matrices |= {f"student.blocks.{i}.fc{j}.weight" for i in (0, 1) for j in (1, 2)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert sorted(matrix_names) == sorted(matrices)
    assert sorted(matrix_names + vector_names) == sorted(names.values())
    assert not any("embed" in name for name in matrix_names + vector_names)


def test_tied_parameters_are_optimised_once(make):
    stage = make(teacher=None)
    stage.student.blocks[0].norm.weight = stage.student.norm.weight
    groups = optimizer(stage).optimizer.param_groups
    optimised = [id(param) for group in groups for param in group["params"]]
    assert len(optimised) == len(set(optimised)) == len(list(stage.parameters()))


def test_weight_decay_shrinks_matrices_alone(make):
    """With zero gradients AdamW multiplies by 1 - lr * decay = 0.999."""
    stage = make()
    initial = {name: p.detach().clone() for name, p in stage.named_parameters()}
    wrapper = optimizer(stage)
    for p in stage.parameters():
        p.grad = torch.zeros_like(p)
    wrapper.step()
    for name, p in stage.named_parameters():
        expected = initial[name] * (0.999 if p.ndim > 1 else 1.0)
        assert torch.allclose(p, expected, rtol=1e-6, atol=0), name


def test_a_paramwise_config_is_mmengines(make):
    """Then every parameter has a group of its own, the head with its own learning rate."""
    stage = make()
    wrapper = optimizer(
        stage, paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"heads": dict(lr_mult=5.0)})
    )
    rate = {id(p): group["lr"] for group in wrapper.optimizer.param_groups for p in group["params"]}
    expected = {name: 5e-2 if "heads" in name else 1e-2 for name, _ in stage.named_parameters()}
    assert {name: rate[id(p)] for name, p in stage.named_parameters()} == pytest.approx(expected)


def test_the_head_is_trained(make, batch):
    stage = make()
    initial = stage.transfer.heads["features"].weight.detach().clone()
    stage.train_step(batch, optimizer(stage))
    assert not torch.equal(stage.transfer.heads["features"].weight, initial)
