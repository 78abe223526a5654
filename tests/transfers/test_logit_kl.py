"""Divergences keep the contract, are as worked out by hand, and hold for any logits."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from compt import ConfigError, describe
from compt.registry import TRANSFERERS
from compt.testing import TransfererContract
from compt.testing.toy import ToyNet
from compt.transfers.logit_kl import divergence


class TestLogitKl(TransfererContract):
    """With logits of the same classes in both models."""

    transfer = dict(type="logit_kl")
    features = ("logits",)

    def make(self, teacher: int = 20, student: int = 20):
        return super().make(teacher, student)

    def outputs(self, width: int, seed: int):
        return super().outputs(20, seed)


class TestLogitKlOfTheLikeliest(TestLogitKl):
    transfer = dict(type="logit_kl", temperature=2.0, top_k=5, output="scores")
    features = ("scores",)


def logits(seed: int, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return 3 * torch.randn(
        *(shape or (4, 6, 11)), generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def test_three_classes_by_hand():
    """Of (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2) it is 1/2 ln 2 + 0 + 1/4 ln 1/2 = 1/4 ln 2."""
    teacher, student = (
        torch.tensor([p], dtype=torch.float64).log() for p in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    )
    assert divergence(student, teacher).item() == pytest.approx(math.log(2) / 4)
    # the likeliest alone against the rest: (1/2, 1/2) and (1/4, 3/4)
    coarse = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(student, teacher, top_k=1).item() == pytest.approx(coarse)
    # at a temperature of 1/2 the odds are squared: (4, 1, 1) / 6 and (1, 1, 4) / 6
    sharp = 0.25 * (4 / 6 * math.log(4) + 1 / 6 * math.log(1 / 4))
    assert divergence(student, teacher, temperature=0.5).item() == pytest.approx(sharp)


@pytest.mark.parametrize("top_k", [None, 1, 3, 10])
def test_equal_predictions_have_no_divergence_and_no_gradient(top_k):
    """Also where the logits differ by a constant."""
    teacher = logits(0)
    student = (teacher + 5).requires_grad_()
    value = divergence(student, teacher, temperature=1.5, top_k=top_k)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_all_classes_equal_torchs_divergence(temperature):
    """Summed over the classes, averaged over batch and positions."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    ours = divergence(student, teacher, temperature=temperature)
    (gradient,) = torch.autograd.grad(ours, student)
    probabilities = (teacher / temperature).softmax(-1).flatten(0, 1)
    theirs = F.kl_div(
        (student / temperature).log_softmax(-1).flatten(0, 1), probabilities, reduction="batchmean"
    )
    assert ours.item() == pytest.approx(temperature**2 * theirs.item(), rel=1e-12)
    assert torch.allclose(
        gradient, *torch.autograd.grad(temperature**2 * theirs, student), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("top_k", [1, 2, 5, 10])
def test_the_likeliest_and_the_rest_equal_a_written_out_divergence(top_k):
    student, teacher = logits(0), logits(1)
    total = 0.0
    for q, p in zip(
        student.softmax(-1).flatten(0, 1).tolist(), teacher.softmax(-1).flatten(0, 1).tolist()
    ):
        likeliest = sorted(range(11), key=lambda i: -p[i])[:top_k]
        pairs = [(p[i], q[i]) for i in likeliest] + [
            (1 - sum(p[i] for i in likeliest), 1 - sum(q[i] for i in likeliest))
        ]
        total += sum(a * math.log(a / b) for a, b in pairs)
    assert divergence(student, teacher, top_k=top_k).item() == pytest.approx(total / 24, rel=1e-9)


def test_coarser_distributions_diverge_less():
    """The divergence grows with top_k and ends at that of all classes."""
    student, teacher = logits(0), logits(1)
    values = [divergence(student, teacher, top_k=k).item() for k in range(1, 13)]
    assert all(a < b + 1e-12 for a, b in itertools.pairwise(values))
    assert values[0] > 0
    over_all = divergence(student, teacher).item()
    assert values[8] < over_all and values[10] == values[11] == over_all
    assert values[9] == pytest.approx(over_all)  # ten classes of eleven, and the last as "the rest"


@pytest.mark.parametrize("top_k", [None, 4])
def test_a_constant_added_to_logits_changes_nothing(top_k):
    student, teacher = logits(0), logits(1)
    value = divergence(student, teacher, top_k=top_k).item()
    shifted = divergence(student - 7, teacher + logits(2, 4, 6, 1), top_k=top_k).item()
    assert shifted == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("top_k", [None, 4])
def test_the_gradient_is_the_students_alone(top_k):
    transfer = TRANSFERERS.build(dict(type="logit_kl", top_k=top_k))
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    transfer({"logits": student}, {"logits": teacher}, progress=0.0)["logit_kl"].backward()
    assert student.grad.any() and teacher.grad is None


def test_the_gradient_at_temperature_one_is_the_difference_of_probabilities():
    """d KL / d logits = q - p, over the number of predictions."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    divergence(student, teacher).backward()
    assert torch.allclose(
        student.grad, (student.softmax(-1) - teacher.softmax(-1)).detach() / 24, atol=1e-12
    )


@pytest.mark.parametrize("top_k", [None, 2])
def test_half_precision_logits_are_compared_in_float32(top_k):
    """The logits are a sure teacher's, whose probabilities underflow.

    The loss stays finite, and its gradient too.
    """
    student = torch.tensor([[40.0, -40.0, 0.0, 1.0]], dtype=torch.bfloat16).requires_grad_()
    teacher = torch.tensor([[-300.0, 300.0, 0.0, 1.0]], dtype=torch.bfloat16)
    value = divergence(student, teacher, top_k=top_k)
    value.backward()
    assert (value.dtype, value.item()) == (torch.float32, 80.0)
    assert torch.isfinite(student.grad).all() and student.grad.any()


def bound(teacher: dict[str, int], student: dict[str, int], **options):
    transfer = TRANSFERERS.build(dict(type="logit_kl", **options))
    arch = describe(ToyNet(16, 1))
    transfer.bind(
        *(replace(arch, features={"hidden": 4}, outputs=widths) for widths in (teacher, student))
    )
    return transfer


def test_different_vocabularies_are_refused():
    assert bound({"logits": 9}, {"logits": 9}).needs == {"logits"}
    assert bound({"logits": 9, "tags": 3}, {"logits": 8, "tags": 3}, output="tags").needs == {
        "tags"
    }
    with pytest.raises(ConfigError, match=r"'logits' of 9 .*with 8 (.|\n)*same vocabulary"):
        bound({"logits": 9}, {"logits": 8})
    with pytest.raises(KeyError, match="scores"):
        bound({"logits": 9}, {"logits": 9}, output="scores")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(temperature=0.0), "temperature: 0.0 is not a positive"),
        (dict(temperature=-1), "temperature: -1 is not a positive"),
        (dict(top_k=0), "top_k: 0 is not a whole"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TRANSFERERS.build(dict(type="logit_kl", **options))


def test_weight_until_and_limit_are_the_cores():
    transfer = TRANSFERERS.build(dict(type="logit_kl", weight=0.5, until=0.25, limit=0.9))
    assert [transfer.strength(p) for p in (0.0, 0.2, 0.25, 1.0)] == [0.5, 0.5, 0.0, 0.0]
    assert (transfer.limit, TRANSFERERS.build(dict(type="logit_kl")).limit) == (0.9, None)
    student, teacher = {"logits": logits(0)}, {"logits": logits(1)}
    term = transfer(student, teacher, progress=0.0)["logit_kl"]  # unweighted
    assert term.item() == pytest.approx(divergence(student["logits"], teacher["logits"]).item())
