"""Build a stage with a student, a teacher and eight points."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import compt.training.optim  # noqa: F401 - registers the constructor
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet
from compt.training.stage import StageModel
from compt.weights import save_weights

MSE = dict(type="feature_mse", limit=None)


def net(width: int, depth: int, *, dropout: float = 0.0) -> ToyNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(ToyNet(width, depth, dropout=dropout))


@pytest.fixture
def make(tmp_path: Path):
    """Build a stage of a student, and of a teacher of another size with its own weights."""

    def build(
        student=(16, 1),
        teacher=(8, 1),
        transfer=None,
        *,
        dropout=0.0,
        init=None,
        weights=None,
        options=None,
        **others,
    ):
        if teacher is not None:
            path = weights or tmp_path / "teacher.safetensors"
            if weights is None:
                save_weights(net(*teacher), path)
            model = dict(width=teacher[0], depth=teacher[1], dropout=dropout)
            teacher = dict(name="small", model=model, weights=str(path), options=options or {})
        model = dict(width=student[0], depth=student[1], dropout=dropout)
        member = dict(name="large", model=model)
        return StageModel(
            dict(type="toy"),
            member,
            teacher=teacher,
            transfer=transfer or MSE,
            init=init,
            **others,
        )

    return build


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    x = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    return {"x": x, "label": torch.arange(8)}


def teacher_of(stage: StageModel) -> nn.Module:
    return stage.teacher.model


def at(stage: StageModel, iteration: int, max_iters: int = 10) -> StageModel:
    stage.iteration, stage.max_iters = iteration, max_iters
    return stage


def recorded(stage: StageModel) -> SimpleNamespace:
    """Record what the student and the teacher are run on and return."""
    seen = SimpleNamespace(student=[], teacher=[], outputs=[])
    forward = stage.paradigm.forward

    def spy(model, batch, needs=None):
        (seen.student if model is stage.student else seen.teacher).append(batch)
        outputs = forward(model, batch)
        seen.outputs.append((model, model.training, outputs))
        return outputs

    stage._student_forward = spy
    if stage.teacher is not None:
        stage.teacher.forward = spy
    return seen


def optimizer(stage: nn.Module, **options):
    cfg = dict(
        optimizer=dict(type="AdamW", lr=1e-2, weight_decay=0.1),
        constructor="ComptOptimWrapperConstructor",
    )
    return build_optim_wrapper(stage, dict(type="OptimWrapper", **cfg, **options))
