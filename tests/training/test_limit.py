"""Hold a StageModel's transfer loss below its limit."""

from __future__ import annotations

import pytest
import torch

from compt import Transferer
from compt.registry import TRANSFERERS


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
    TRANSFERERS.module_dict.pop("two_terms")


@pytest.mark.parametrize("limit", [0.9, 0.25])
def test_the_limit_holds_the_sum_of_all_terms(make, batch, two_terms, limit):
    losses = make(transfer=dict(two_terms, limit=limit), dropout=0.1)(mode="loss", **batch)
    task, large, small = (
        losses[k].item() for k in ("task/cross_entropy", "transfer/large", "transfer/small")
    )
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
        return losses, torch.cat(
            [p.grad.flatten() for p in stage.student.parameters() if p.grad is not None]
        )

    alone = make(teacher=None).eval()
    alone(mode="loss", **batch)["loss"].backward()
    task = torch.cat([p.grad.flatten() for p in alone.student.parameters()])
    (free, full), (held, limited) = gradient(limit=None), gradient(limit=0.5)
    factor = held["transfer/large"] / free["transfer/large"]
    assert factor < 0.1
    assert torch.allclose(limited, task + factor * (full - task), atol=1e-5)
