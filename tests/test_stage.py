"""StageModel: what the student learns from, what the teacher is kept out of, and what depends on the seed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from safetensors.torch import load_file
from torch import nn

import compt
import compt.optim
from compt import Transferer, grow
from compt.checkpoint import save_weights
from compt.interfaces import Member
from compt.registry import PARADIGMS, TRANSFERERS
from compt.stage import StageModel, build_member
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet

MSE = dict(type="feature_mse", limit=None)


def net(width: int, depth: int, *, dropout: float = 0.0) -> ToyNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(ToyNet(width, depth, dropout=dropout))


@pytest.fixture
def make(tmp_path: Path):
    """Build a stage: a student of one size, a teacher of another with weights of its own, eight points."""

    def build(student=(16, 1), teacher=(8, 1), transfer=None, *, dropout=0.0, init=None, weights=None, **options):
        if teacher is not None:
            path = weights or tmp_path / "teacher.safetensors"
            if weights is None:
                save_weights(net(*teacher), path)
            model = dict(width=teacher[0], depth=teacher[1], dropout=dropout)
            teacher = dict(name="small", model=model, weights=str(path))
        model = dict(width=student[0], depth=student[1], dropout=dropout)
        member = dict(name="large", model=model)
        return StageModel(dict(type="toy"), member, teacher=teacher, transfer=transfer or MSE, init=init, **options)

    return build


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    x = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    return {"x": x, "label": torch.arange(8)}


def teacher_of(stage: StageModel) -> nn.Module:
    return stage._teacher[0]


def at(stage: StageModel, iteration: int, max_iters: int = 10) -> StageModel:
    stage.iteration, stage.max_iters = iteration, max_iters
    return stage


def recorded(stage: StageModel) -> SimpleNamespace:
    """Record what the student and the teacher are run on and return."""
    seen = SimpleNamespace(student=[], teacher=[], outputs=[])
    forward = stage.paradigm.forward

    def spy(model, batch):
        (seen.student if model is stage.student else seen.teacher).append(batch)
        outputs = forward(model, batch)
        seen.outputs.append((model, model.training, outputs))
        return outputs

    stage.paradigm.forward = spy
    return seen


def optimizer(stage: nn.Module, **options):
    cfg = dict(optimizer=dict(type="AdamW", lr=1e-2, weight_decay=0.1), constructor="ComptOptimWrapperConstructor")
    return build_optim_wrapper(stage, dict(type="OptimWrapper", **cfg, **options))


def test_the_loss_is_the_tasks_plus_the_weighted_transfer(make, batch):
    """Each term worked out again from the two models, in eval mode and on one prepared batch."""
    stage = make((16, 1), (8, 1), dict(MSE, weight=0.3)).eval()
    losses = stage(mode="loss", **batch)
    prepared = stage.paradigm.prepare(batch, generator=stage.generator())
    features, goal = (m.features(prepared["x"]) for m in (stage.student, teacher_of(stage)))
    task = nn.functional.cross_entropy(stage.student.head(features), batch["label"])
    unit = [f / f.norm(dim=1, keepdim=True) for f in (stage.transfer.heads["features"](features), goal)]
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
    assert [training for model, training, _ in seen.outputs if model is stage.student] == [True, False, True]
    taught = [o["features"] for model, training, o in seen.outputs if model is teacher_of(stage) and not training]
    assert len(taught) == 3
    assert torch.equal(taught[0], taught[1]) and torch.equal(taught[0], taught[2])
    expected = net(8, 1).eval().features(seen.teacher[0]["x"])
    assert torch.equal(taught[0], expected)


def test_the_teacher_learns_nothing(make, batch):
    stage = make().train()
    before = {k: v.clone() for k, v in teacher_of(stage).state_dict().items()}
    student = {k: v.clone() for k, v in stage.student.state_dict().items()}
    wrapper = optimizer(stage)
    for _ in range(2):
        stage.train_step(batch, wrapper)
    assert all(p.grad is None and not p.requires_grad for p in teacher_of(stage).parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher_of(stage).state_dict().items())
    assert not any(torch.equal(v, student[k]) for k, v in stage.student.state_dict().items())


def test_the_teachers_outputs_carry_no_graph(make, batch):
    stage = make()
    seen = recorded(stage)
    stage(mode="loss", **batch)
    graphs = {model is stage.student: outputs["features"].requires_grad for model, _, outputs in seen.outputs}
    assert graphs == {True: True, False: False}


def test_the_checkpoint_holds_student_and_heads_alone(make):
    stage = make((16, 2), (8, 1))
    expected = {f"student.{name}" for name in ToyNet(16, 2).state_dict()} | {"transfer.heads.features.weight"}
    assert set(stage.state_dict()) == expected
    assert {name for name, _ in stage.named_parameters()} == expected
    assert stage.transfer.heads["features"].weight.shape == (8, 16)


def test_equal_widths_need_no_head(make):
    assert set(make((16, 2), (16, 1)).state_dict()) == {f"student.{name}" for name in ToyNet(16, 2).state_dict()}


def test_a_checkpoint_brings_the_heads_back(make, batch):
    stage, other = make(seed=0), make(seed=5)
    optimizer(stage)
    stage.train_step(batch, optimizer(stage))
    other.load_state_dict(stage.state_dict())
    other.seed = stage.seed
    one, two = (s.eval()(mode="loss", **batch) for s in (stage, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


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
    """Matrices decay, gains and biases do not; the head is a matrix; the teacher and what is frozen stay out."""
    stage = make((16, 2), (8, 1))
    stage.student.embed.requires_grad_(False)
    decayed, plain = optimizer(stage).optimizer.param_groups
    names = {id(p): name for name, p in stage.named_parameters() if p.requires_grad}
    given = [[names[id(p)] for p in group["params"]] for group in (decayed, plain)]
    matrices = {"student.head.weight", "transfer.heads.features.weight"}
    matrices |= {f"student.blocks.{i}.fc{j}.weight" for i in (0, 1) for j in (1, 2)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert sorted(given[0]) == sorted(matrices)
    assert sorted(given[0] + given[1]) == sorted(names.values())
    assert not any("embed" in name for name in given[0] + given[1])


def test_tied_parameters_are_optimised_once(make):
    stage = make(teacher=None)
    stage.student.blocks[0].norm.weight = stage.student.norm.weight
    given = [id(p) for group in optimizer(stage).optimizer.param_groups for p in group["params"]]
    assert len(given) == len(set(given)) == len(list(stage.parameters()))


def test_weight_decay_shrinks_matrices_alone(make):
    """With zero gradients AdamW multiplies by 1 - lr * decay = 0.999."""
    stage = make()
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    wrapper = optimizer(stage)
    for p in stage.parameters():
        p.grad = torch.zeros_like(p)
    wrapper.step()
    for name, p in stage.named_parameters():
        assert torch.allclose(p, before[name] * (0.999 if p.ndim > 1 else 1.0), rtol=1e-6, atol=0), name


def test_a_paramwise_config_is_mmengines(make):
    """Then every parameter has a group of its own, the head with its own learning rate."""
    stage = make()
    wrapper = optimizer(stage, paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"heads": dict(lr_mult=5.0)}))
    rate = {id(p): group["lr"] for group in wrapper.optimizer.param_groups for p in group["params"]}
    expected = {name: 5e-2 if "heads" in name else 1e-2 for name, _ in stage.named_parameters()}
    assert {name: rate[id(p)] for name, p in stage.named_parameters()} == pytest.approx(expected)


def test_the_head_is_trained(make, batch):
    stage = make()
    before = stage.transfer.heads["features"].weight.detach().clone()
    stage.train_step(batch, optimizer(stage))
    assert not torch.equal(stage.transfer.heads["features"].weight, before)


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


@pytest.mark.parametrize("transfer", [dict(type="none"), dict(MSE, weight=0.0), dict(MSE, until=0.0)])
def test_a_transfer_without_weight_runs_no_teacher(make, batch, toy, transfer):
    stage = make(transfer=transfer)
    assert set(stage(mode="loss", **batch)) == {"loss", "task/cross_entropy"}
    toy["transfer"] = transfer
    planned = compt.plan(toy).stages[1]
    assert (planned.teacher_iters, planned.teacher_flops, planned.transfer) == (0, 0.0, "none")


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
    TRANSFERERS._module_dict.pop("fading_in")


def test_a_transfer_may_fade_in(make, batch, toy, fading_in):
    """A weight of 0 at the start is not a weight of 0 for ever."""
    stage = make(transfer=fading_in)
    assert [len(at(stage, i)(mode="loss", **batch)) for i in (0, 1, 9)] == [2, 3, 3]
    toy["transfer"] = fading_in
    assert compt.plan(toy).stages[1].teacher_iters == 7


@pytest.fixture
def two_terms():
    """A transfer of two large terms, 30 and 10 times the student's own features."""

    @TRANSFERERS.register_module(name="two_terms")
    class TwoTerms(Transferer):
        def __init__(self, *, limit, weight=1.0):
            super().__init__(weight=weight)
            self.limit = limit

        def forward(self, student, teacher, *, progress):
            size = student["features"].square().mean()
            return {"large": 30 * size, "small": 10 * size}

    yield dict(type="two_terms")
    TRANSFERERS._module_dict.pop("two_terms")


@pytest.mark.parametrize("limit", [0.9, 0.25])
def test_the_limit_holds_the_sum_of_all_terms(make, batch, two_terms, limit):
    losses = make(transfer=dict(two_terms, limit=limit), dropout=0.1)(mode="loss", **batch)
    task, large, small = (losses[k].item() for k in ("task/cross_entropy", "transfer/large", "transfer/small"))
    assert large + small == pytest.approx(limit * task, rel=1e-5)
    assert large == pytest.approx(3 * small, rel=1e-5)
    assert losses["loss"].item() == pytest.approx((1 + limit) * task, rel=1e-5)


def test_below_the_limit_nothing_is_scaled(make, batch, two_terms):
    free = make(transfer=dict(two_terms, limit=None, weight=1e-3))(mode="loss", **batch)
    held = make(transfer=dict(two_terms, limit=0.9, weight=1e-3))(mode="loss", **batch)
    assert free.keys() == held.keys()
    assert all(torch.equal(free[k], held[k]) for k in free)


def test_the_limit_scales_the_gradient_and_has_none_itself(make, batch, two_terms):
    """The limited gradient is the task's plus a constant times the transfer's."""

    def gradient(**options):
        stage = make(transfer=dict(two_terms, **options)).eval()
        losses = stage(mode="loss", **batch)
        losses["loss"].backward()
        return losses, torch.cat([p.grad.flatten() for p in stage.student.parameters() if p.grad is not None])

    alone = make(teacher=None).eval()
    alone(mode="loss", **batch)["loss"].backward()
    task = torch.cat([p.grad.flatten() for p in alone.student.parameters()])
    (free, full), (held, limited) = gradient(limit=None), gradient(limit=0.5)
    factor = held["transfer/large"] / free["transfer/large"]
    assert factor < 0.1
    assert torch.allclose(limited, task + factor * (full - task), atol=1e-5)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_a_lossless_student_starts_with_a_transfer_loss_of_zero(make, batch, tmp_path, dtype, least):
    small, large = net(16, 1), net(16, 3)
    assert grow(small, large).function_preserving
    files = [tmp_path / f"{name}.safetensors" for name in ("small", "large")]
    for model, file in zip((small, large), files):
        save_weights(model, file)
    stage = make((16, 3), (16, 1), weights=files[0], init=str(files[1])).to(dtype).train()
    losses = stage(mode="loss", x=batch["x"].to(dtype), label=batch["label"])
    assert losses["loss"].dtype is dtype, "the teacher was left behind"
    assert losses["transfer/feature_mse"].item() < least
    fresh = make((16, 3), (16, 1), weights=files[0]).to(dtype)
    assert fresh(mode="loss", x=batch["x"].to(dtype), label=batch["label"])["transfer/feature_mse"].item() > 0.01


def test_dropout_is_the_students_alone(make, batch, tmp_path):
    """The same weights on both sides: equal in eval mode, apart in training by the student's dropout."""
    save_weights(net(16, 1), tmp_path / "same.safetensors")
    file = str(tmp_path / "same.safetensors")
    stage = make((16, 1), (16, 1), weights=file, init=file, dropout=0.5)
    assert stage.eval()(mode="loss", **batch)["transfer/feature_mse"].item() == 0.0
    assert stage.train()(mode="loss", **batch)["transfer/feature_mse"].item() > 0.01


def test_features_named_in_the_config_are_compared(make, batch):
    """Any output that the paradigm names may be compared, not only those it compares by default."""
    stage = make(transfer=dict(MSE, features=["logits"])).eval()
    losses = stage(mode="loss", **batch)
    prepared = stage.paradigm.prepare(batch, generator=stage.generator())
    logits = [nn.functional.normalize(m(prepared["x"]), dim=1) for m in (stage.student, teacher_of(stage))]
    expected = (logits[0] - logits[1]).square().sum(1).mean().item()
    assert losses["transfer/feature_mse"].item() == pytest.approx(expected, rel=1e-5)
    assert not any("heads" in name for name in stage.state_dict())


def test_fresh_weights_depend_on_the_seed_alone():
    paradigm, member = PARADIGMS.build(dict(type="toy")), Member("a", dict(width=16, depth=2))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = build_member(paradigm, member, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two, other = (build_member(paradigm, member, seed=seed) for seed in (7, 8))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert not torch.equal(one.embed.weight, other.embed.weight)


def test_a_stage_is_built_the_same_under_any_random_state(make):
    """Student and projection heads; the dropout of trial runs may not disturb the global state either."""
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        states.append(make(dropout=0.5, seed=3).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert "transfer.heads.features.weight" in states[0]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    other = make(dropout=0.5, seed=4).state_dict()
    assert not torch.equal(states[0]["transfer.heads.features.weight"], other["transfer.heads.features.weight"])
    assert not torch.equal(states[0]["student.embed.weight"], other["student.embed.weight"])


def test_given_weights_are_kept(make, tmp_path):
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

    monkeypatch.setattr(toy.ToyLayout, "patterns", {**toy.ToyLayout.patterns, "seen": "constant: 1"})
    monkeypatch.setattr(toy.Toy, "build_model", lambda self, member: RunningNet(**member.model))
    monkeypatch.setattr("compt.stage.load_weights", lambda model, path: None)
    stage = make()
    assert stage.student.training
    assert stage.student.seen.item() == 0, "the student was trained on an example batch"


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


def test_the_plain_forward_runs_the_student_alone(make, batch):
    stage = make().eval()
    seen = recorded(stage)
    outputs = stage(**batch)
    assert not seen.teacher
    assert torch.equal(outputs["features"], stage.student.features(seen.student[0]["x"]))


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_distributed_stage_goes_on_after_until(make, batch, one_process):
    """From then on the projection heads have no part in the loss."""
    from mmengine.registry import MODEL_WRAPPERS

    from compt.distributed import wrapper

    stage = make(transfer=dict(MSE, until=0.5))
    config = wrapper()["model_wrapper_cfg"]
    model = MODEL_WRAPPERS.build({**config, "module": stage})
    optim = optimizer(model)
    losses = []
    for i in range(6):
        at(stage, i, 6)
        losses.append(model.train_step(batch, optim)["loss"].item())
    assert losses[5] < losses[3]
