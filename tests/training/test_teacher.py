"""Let a StageModel's student learn from its teacher, which itself stays out of training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import compt
from compt import Transferer, grow
from compt.registry import TRANSFERERS
from compt.weights import save_weights
from tests.training.conftest import MSE, at, net, optimizer, recorded, teacher_of


def test_the_loss_is_the_tasks_plus_the_weighted_transfer(make, batch):
    """Each term worked out again from the two models, in eval mode and on one prepared batch."""
    stage = make((16, 1), (8, 1), dict(MSE, weight=0.3)).eval()
    losses = stage(mode="loss", **batch)
    prepared = stage.paradigm.prepare(batch, generator=stage.generator(), draws=stage.draws())
    features, goal = (m.features(prepared["x"]) for m in (stage.student, teacher_of(stage)))
    task = nn.functional.cross_entropy(stage.student.head(features), batch["label"])
    unit = [
        f / f.norm(dim=1, keepdim=True) for f in (stage.transfer.heads["features"](features), goal)
    ]
    transfer = 0.3 * (unit[0] - unit[1]).square().sum(1).mean()
    assert set(losses) == {"loss", "task/cross_entropy", "transfer/feature_mse"}
    assert losses["task/cross_entropy"].item() == pytest.approx(task.item(), rel=1e-6)
    assert losses["transfer/feature_mse"].item() == pytest.approx(transfer.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((task + transfer).item(), rel=1e-6)


def test_without_a_teacher_the_loss_is_the_tasks(make, batch):
    losses = make(teacher=None)(mode="loss", **batch)
    assert losses["loss"].item() == pytest.approx(losses["task/cross_entropy"].item())
    assert set(losses) == {"loss", "task/cross_entropy"}


def test_the_teacher_stays_in_eval_mode_and_has_its_own_weights(make, batch):
    stage = make(dropout=0.5)
    seen = recorded(stage)
    for mode in (True, False, True):
        stage.train(mode)(mode="loss", **batch)
    assert [training for model, training, _ in seen.outputs if model is stage.student] == [
        True,
        False,
        True,
    ]
    taught = [
        o["features"]
        for model, training, o in seen.outputs
        if model is teacher_of(stage) and not training
    ]
    assert len(taught) == 3
    assert torch.equal(taught[0], taught[1]) and torch.equal(taught[0], taught[2])
    expected = net(8, 1).eval().features(seen.teacher[0]["x"])
    assert torch.equal(taught[0], expected)


def test_the_teacher_learns_nothing(make, batch):
    stage = make().train()
    teacher = {k: v.clone() for k, v in teacher_of(stage).state_dict().items()}
    student = {k: v.clone() for k, v in stage.student.state_dict().items()}
    wrapper = optimizer(stage)
    for _ in range(2):
        stage.train_step(batch, wrapper)
    assert all(p.grad is None and not p.requires_grad for p in teacher_of(stage).parameters())
    assert all(torch.equal(v, teacher[k]) for k, v in teacher_of(stage).state_dict().items())
    assert not any(torch.equal(v, student[k]) for k, v in stage.student.state_dict().items())


def test_the_teachers_outputs_carry_no_graph(make, batch):
    stage = make()
    seen = recorded(stage)
    stage(mode="loss", **batch)
    graphs = {
        model is stage.student: outputs["features"].requires_grad
        for model, _, outputs in seen.outputs
    }
    assert graphs == {True: True, False: False}


def test_after_until_the_teacher_is_not_run(make, batch):
    stage = make(transfer=dict(MSE, until=0.5))
    seen = recorded(stage)
    keys = [set(at(stage, i)(mode="loss", **batch)) for i in range(10)]
    assert len(seen.student) == 10
    assert len(seen.teacher) == 5
    assert ["transfer/feature_mse" in k for k in keys] == [True] * 5 + [False] * 5
    losses = at(stage, 5)(mode="loss", **batch)
    assert losses["loss"].item() == pytest.approx(losses["task/cross_entropy"].item())


@pytest.mark.parametrize("until", [0.3, 0.5, 0.77, 1.0])
def test_the_teacher_is_run_as_often_as_was_planned(make, batch, toy, until):
    toy["chain"] = toy["chain"][:2]
    toy["chain"][1]["iters"] = 13
    toy["transfer"] = dict(MSE, until=until)
    stage = make(transfer=toy["transfer"])
    seen = recorded(stage)
    for i in range(13):
        at(stage, i, 13)(mode="loss", **batch)
    assert len(seen.teacher) == compt.plan(toy).stages[1].teacher_iters


@pytest.mark.parametrize(
    "transfer", [dict(type="none"), dict(MSE, weight=0.0), dict(MSE, until=0.0)]
)
def test_a_transfer_without_weight_runs_no_teacher(make, batch, toy, transfer):
    stage = make(transfer=transfer)
    assert set(stage(mode="loss", **batch)) == {"loss", "task/cross_entropy"}
    toy["transfer"] = transfer
    planned = compt.plan(toy).stages[1]
    assert (planned.teacher_iters, planned.teacher_flops, planned.transfer) == (0, 0.0, None)


@pytest.fixture
def fading_in():
    """A transfer that starts at nothing and grows over the stage."""

    @TRANSFERERS.register_module(name="fading_in")
    class FadingIn(Transferer):
        def strength(self, progress):
            return progress

        def forward(self, student, teacher, *, progress):
            return {"norm": (student["features"].norm() - teacher["features"].norm()).abs()}

    yield dict(type="fading_in")
    TRANSFERERS.module_dict.pop("fading_in")


def test_a_transfer_may_fade_in(make, batch, toy, fading_in):
    """A weight of 0 at the start is not a weight of 0 for ever."""
    stage = make(transfer=fading_in)
    assert [len(at(stage, i)(mode="loss", **batch)) for i in (0, 1, 9)] == [2, 3, 3]
    toy["transfer"] = fading_in
    assert compt.plan(toy).stages[1].teacher_iters == 7


def test_dropout_is_the_students_alone(make, batch, tmp_path):
    """With the same weights on both sides, they are apart only in training, by dropout."""
    save_weights(net(16, 1), tmp_path / "same.safetensors")
    file = str(tmp_path / "same.safetensors")
    stage = make((16, 1), (16, 1), weights=file, init=file, dropout=0.5)
    assert stage.eval()(mode="loss", **batch)["transfer/feature_mse"].item() == 0.0
    assert stage.train()(mode="loss", **batch)["transfer/feature_mse"].item() > 0.01


def test_features_named_in_the_config_are_compared(make, batch):
    """Any output that the paradigm names may be compared, not only those it compares by default."""
    stage = make(transfer=dict(MSE, features=["logits"])).eval()
    losses = stage(mode="loss", **batch)
    prepared = stage.paradigm.prepare(batch, generator=stage.generator(), draws=stage.draws())
    logits = [
        nn.functional.normalize(m(prepared["x"]), dim=1) for m in (stage.student, teacher_of(stage))
    ]
    expected = (logits[0] - logits[1]).square().sum(1).mean().item()
    assert losses["transfer/feature_mse"].item() == pytest.approx(expected, rel=1e-5)
    assert not any("heads" in name for name in stage.state_dict())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_a_lossless_student_starts_with_a_transfer_loss_of_zero(
    make, batch, tmp_path, dtype, tolerance
):
    small, large = net(16, 1), net(16, 3)
    assert grow(small, large).function_preserving
    files = [tmp_path / f"{name}.safetensors" for name in ("small", "large")]
    for model, file in zip((small, large), files):
        save_weights(model, file)
    stage = make((16, 3), (16, 1), weights=files[0], init=str(files[1])).to(dtype).train()
    losses = stage(mode="loss", x=batch["x"].to(dtype), label=batch["label"])
    assert losses["loss"].dtype is dtype, "the teacher was left behind"
    assert losses["transfer/feature_mse"].item() < tolerance
    fresh = make((16, 3), (16, 1), weights=files[0]).to(dtype)
    losses = fresh(mode="loss", x=batch["x"].to(dtype), label=batch["label"])
    assert losses["transfer/feature_mse"].item() > 0.01


def test_the_plain_forward_runs_the_student_alone(make, batch):
    stage = make().eval()
    seen = recorded(stage)
    outputs = stage(**batch)
    assert not seen.teacher
    assert torch.equal(outputs["features"], stage.student.features(seen.student[0]["x"]))


@pytest.fixture
def one_process():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_a_distributed_stage_goes_on_after_until(make, batch, one_process):
    """From then on the projection heads have no part in the loss."""
    from mmengine.registry import MODEL_WRAPPERS

    from compt.training.distributed import wrapper

    stage = make(transfer=dict(MSE, until=0.5))
    config = wrapper()["model_wrapper_cfg"]
    model = MODEL_WRAPPERS.build({**config, "module": stage})
    optim = optimizer(model)
    losses = []
    for i in range(6):
        at(stage, i, 6)
        losses.append(model.train_step(batch, optim)["loss"].item())
    assert losses[5] < losses[3]
