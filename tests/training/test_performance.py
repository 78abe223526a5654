"""Run a StageModel with performance options.

Number format, attention kernel and torch.compile change how it computes, not what is saved of it.
"""

from __future__ import annotations

import shutil

import pytest
import torch

from compt.testing.toy import ToyNet
from compt.training.performance import Performance
from tests.training.conftest import optimizer, teacher_of

BF16 = dict(precision="bf16")


class Counting:
    """A backend of torch.compile that runs graphs as they are, and counts them and their calls."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, module, example_inputs):
        self.graphs += 1

        def run(*arguments):
            self.calls += 1
            return module.forward(*arguments)

        return run


@pytest.fixture
def seen(monkeypatch):
    """For every run of a ToyNet: the model, and what one of its layers returned."""
    runs = []
    features = ToyNet.features

    def spy(self, x):
        handle = self.embed.register_forward_hook(
            lambda module, inputs, output: runs.append((self, output))
        )
        try:
            return features(self, x)
        finally:
            handle.remove()

    monkeypatch.setattr(ToyNet, "features", spy)
    return runs


def trained(stage, batch, steps: int = 3) -> list[float]:
    """The losses of some steps."""
    wrapper = optimizer(stage.train())
    return [stage.train_step(batch, wrapper)["loss"].item() for _ in range(steps)]


def gradients(stage, batch) -> dict[str, torch.Tensor]:
    stage.zero_grad()
    stage(mode="loss", **batch)["loss"].backward()
    return {name: p.grad for name, p in stage.named_parameters()}


# Number format


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_student_and_teacher_are_run_in_the_precision(
    make, batch, seen, precision, dtype, training
):
    stage = make(performance=dict(precision=precision)).train(training)
    seen.clear()
    losses = stage(mode="loss", **batch)
    assert [model for model, _ in seen] == [stage.student, teacher_of(stage)]
    assert [output.dtype for _, output in seen] == [dtype, dtype]
    assert all(loss.dtype is torch.float32 for loss in losses.values())


def test_the_plain_forward_is_run_in_the_precision_too(make, batch):
    assert make(performance=BF16).eval()(**batch)["logits"].dtype is torch.bfloat16


def test_weights_gradients_and_optimizer_state_stay_float32(make, batch):
    stage = make(performance=BF16).train()
    wrapper = optimizer(stage)
    stage.train_step(batch, wrapper)
    state = [value for own in wrapper.optimizer.state.values() for value in own.values()]
    weights = [*stage.state_dict().values(), *teacher_of(stage).state_dict().values()]
    assert len(state) == 3 * len(list(stage.parameters()))
    assert {tensor.dtype for tensor in (*weights, *state)} == {torch.float32}
    assert {g.dtype for g in gradients(stage, batch).values()} == {torch.float32}


def test_bfloat16_is_near_float32_and_not_equal(make, batch):
    exact, rounded = (
        make(performance=performance)(mode="loss", **batch)["loss"].item()
        for performance in ({}, BF16)
    )
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact


def test_autocast_from_outside_is_left_alone(make, batch, seen):
    """As by mmengine's AmpOptimWrapper, where the config has no precision."""
    stage = make()
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        stage(mode="loss", **batch)
    assert {output.dtype for _, output in seen} == {torch.bfloat16}


# Attention kernel


def kernels() -> tuple[bool, ...]:
    """Which kernels scaled_dot_product_attention may take now."""
    cuda = torch.backends.cuda
    return tuple(
        bool(enabled())
        for enabled in (
            cuda.flash_sdp_enabled,
            cuda.mem_efficient_sdp_enabled,
            cuda.cudnn_sdp_enabled,
            cuda.math_sdp_enabled,
        )
    )


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("attention", "allowed"),
    [
        ("flash", (True, False, False, False)),
        ("efficient", (False, True, False, False)),
        ("cudnn", (False, False, True, False)),
        ("math", (False, False, False, True)),
        ("auto", None),
    ],
)
def test_the_attention_kernel_is_set_for_both_models_and_for_recomputed_blocks(
    make, batch, attention, allowed, recompute
):
    stage = make(performance=dict(attention=attention, grad_checkpointing=recompute)).train()
    seen_kernels = []
    for model in (stage.student, teacher_of(stage)):
        model.blocks[0].fc1.register_forward_hook(lambda *_: seen_kernels.append(kernels()))
    default = kernels()
    stage(mode="loss", **batch)["loss"].backward()
    assert seen_kernels == [allowed or default] * (3 if recompute else 2)
    assert kernels() == default


# torch.compile


def test_the_compiled_functions_are_those_that_are_run(make, batch):
    backend = Counting()
    plain, stage = (
        make((16, 2), (8, 1), performance=performance)
        for performance in ({}, dict(compile=dict(backend=backend)))
    )
    names = set(stage.state_dict())
    assert trained(stage, batch) == trained(plain, batch)
    assert (backend.graphs, backend.calls) == (2, 6), "student and teacher, three times each"
    assert set(stage.state_dict()) == names == set(plain.state_dict())
    compiled, expected = gradients(stage, batch), gradients(plain, batch)
    assert all(torch.equal(compiled[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("value", "options"), [(True, {}), ({}, {}), (dict(mode="x"), dict(mode="x"))]
)
def test_options_of_compile_are_torchs(monkeypatch, value, options):
    calls = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **more: calls.append((function, more)) or max
    )
    assert Performance(compile=value).compiled(min) is max
    assert calls == [(min, options)]
    assert Performance(compile=False).compiled(min) is min
    assert len(calls) == 1


def test_every_stage_of_a_long_chain_is_compiled(make, batch):
    """Left to itself torch gives up after eight models."""
    backend = Counting()
    for i in range(9):
        make((8 + 4 * i, 1), None, performance=dict(compile=dict(backend=backend)))(
            mode="loss", **batch
        )
    assert backend.graphs == 9


def test_a_student_trained_with_all_options_exports_as_any_other(make, batch, tmp_path):
    performance = dict(
        BF16,
        grad_checkpointing=True,
        mini_batch_size=3,
        compile=dict(backend="aot_eager"),
        attention="math",
    )
    stage = make((16, 2), (8, 1), performance=performance)
    trained(stage, batch)
    stage.paradigm.export(stage.student, tmp_path)
    state = stage.paradigm.load(tmp_path).state_dict()
    assert state.keys() == ToyNet(16, 2).state_dict().keys()
    assert all(
        torch.equal(value, stage.student.state_dict()[name]) for name, value in state.items()
    )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
def test_the_default_compiler_gives_nearly_the_same_losses(make, batch):
    performance = dict(compile=True, grad_checkpointing=True)
    plain, compiled = (
        trained(make((16, 2), (8, 1), performance=options), batch, steps=5)
        for options in ({}, performance)
    )
    assert compiled == pytest.approx(plain, rel=1e-4)
