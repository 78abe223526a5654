"""Feature distances keep the contract, and are as worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from compt import ConfigError, describe
from compt.registry import TRANSFERERS
from compt.testing import TransfererContract
from compt.testing.toy import ToyNet
from compt.transfers.feature_mse import feature_distance
from tests.transfers.features import rows


class TestFeatureMse(TransfererContract):
    transfer = dict(type="feature_mse")


class TestFeatureMseOfTwo(TransfererContract):
    transfer = dict(type="feature_mse", features=["image", "text"], weight=3.0, until=0.4)
    features = ("image", "text")


def bound(student: dict[str, int], teacher: dict[str, int], **options):
    """A feature_mse between models with these features, width by name."""
    transfer = TRANSFERERS.build(dict(type="feature_mse", **options))
    arch = describe(ToyNet(16, 1))
    transfer.bind(replace(arch, features=teacher), replace(arch, features=student))
    return transfer


@pytest.mark.parametrize(
    ("student", "teacher", "distance"),
    [
        ([1.0, 0.0], [1.0, 0.0], 0.0),
        ([1.0, 0.0], [0.0, 1.0], 2.0),
        ([1.0, 0.0], [-1.0, 0.0], 4.0),
        ([3.0, 4.0], [1.0, 0.0], 0.8),  # (0.6 - 1)^2 + 0.8^2
        ([5.0, 5.0], [0.0, 0.1], 2 - 2**0.5),  # 2 - 2 cos 45 degrees
    ],
)
def test_distance_of_two_vectors_by_hand(student, teacher, distance):
    assert feature_distance(rows(student), rows(teacher)).item() == pytest.approx(
        distance, abs=1e-12
    )


def test_distances_are_averaged_over_batch_and_tokens_and_summed_over_the_width():
    """0, 2 and 4 average to 2, also where they are tokens of one sample."""
    student = rows([1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    teacher = rows([7.0, 0.0], [0.0, 7.0], [-7.0, 0.0])
    assert feature_distance(student, teacher).item() == pytest.approx(2.0)
    assert feature_distance(student[None], teacher[None]).item() == pytest.approx(2.0)
    wide = F.pad(torch.eye(1, 100, dtype=torch.float64), (0, 100))
    assert feature_distance(wide, wide.flip(-1)).item() == pytest.approx(2.0)


def test_terms_are_averaged_over_the_features():
    """Orthogonal images (2) and opposite texts (4) give 3."""
    transfer = bound({"image": 2, "text": 2}, {"image": 2, "text": 2}, weight=5.0)
    student = {"image": rows([1.0, 0.0]), "text": rows([1.0, 0.0])}
    teacher = {"image": rows([0.0, 1.0]), "text": rows([-1.0, 0.0])}
    terms = transfer(student, teacher, progress=0.0)
    assert {name: term.item() for name, term in terms.items()} == {
        "feature_mse": pytest.approx(3.0)
    }


def test_the_papers_alpha_is_a_weight_of_one():
    """alpha = 500 over a mean of 512 features is 500 / 512 times the sum over the width."""
    student, teacher = (
        torch.randn(4, 512, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1)
    )
    paper = 500 * F.mse_loss(F.normalize(student, dim=-1), F.normalize(teacher, dim=-1))
    assert 500 / 512 * feature_distance(student, teacher).item() == pytest.approx(paper.item())


def test_scale_rotation_and_width_do_not_change_the_distance():
    student, teacher = (
        torch.randn(6, 5, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1)
    )
    distance = feature_distance(student, teacher).item()
    scales = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    rotation = torch.linalg.qr(
        torch.randn(5, 5, generator=torch.Generator().manual_seed(2)).double()
    ).Q
    isometry = torch.linalg.qr(
        torch.randn(11, 5, generator=torch.Generator().manual_seed(3)).double()
    ).Q.T
    assert 0.5 < distance < 3.5
    for changed_student, changed_teacher in (
        (scales * student, teacher / scales),
        (student @ rotation, teacher @ rotation),
        (student @ isometry, teacher @ isometry),
        (torch.cat([student, student], 1), torch.cat([teacher, teacher], 1)),
    ):
        assert feature_distance(changed_student, changed_teacher).item() == pytest.approx(
            distance, rel=1e-12
        )
    assert feature_distance(student @ rotation, teacher).item() != pytest.approx(distance, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype):
    """A sum of squares beyond float16's range, and a distance that bfloat16 cannot tell from 2."""
    student = torch.tensor([[300.0, 0.0]], dtype=dtype)
    teacher = torch.tensor([[0.0, 300.0], [1.0, 300.0]], dtype=dtype)
    distance = feature_distance(student, teacher[:1])
    assert (distance.dtype, distance.item()) == (torch.float32, 2.0)
    assert feature_distance(student, teacher[1:]).item() == pytest.approx(2 - 2 / 300, abs=1e-5)


def test_features_of_zero_length_have_finite_gradients():
    student = torch.zeros(1, 4, requires_grad=True)
    distance = feature_distance(student, torch.ones(1, 4))
    distance.backward()
    assert distance.item() == pytest.approx(1.0)
    assert torch.isfinite(student.grad).all()


def test_the_gradient_turns_the_student_towards_the_teacher():
    """For unit s, d/ds |s/|s| - t|^2 = -2 (t - s (s.t)), which is (0, -2) here."""
    student, teacher = rows([1.0, 0.0]).requires_grad_(), rows([0.0, 1.0])
    feature_distance(student, teacher).backward()
    assert torch.allclose(student.grad, rows([0.0, -2.0]))


def test_heads_only_where_widths_differ():
    transfer = bound({"image": 6, "text": 4}, {"image": 3, "text": 4})
    assert {name: tuple(p.shape) for name, p in transfer.named_parameters()} == {
        "heads.image.weight": (3, 6)
    }
    assert not list(bound({"image": 4}, {"image": 4}).parameters())


def test_a_head_projects_the_student():
    """A head that drops the third coordinate leaves orthogonal vectors, whatever that was."""
    transfer = bound({"image": 3}, {"image": 2})
    with torch.no_grad():
        transfer.heads["image"].weight.copy_(torch.eye(2, 3))
    student, teacher = (
        {"image": torch.tensor([[1.0, 0.0, 9.0]])},
        {"image": torch.tensor([[0.0, 1.0]])},
    )
    assert transfer(student, teacher, progress=0.0)["feature_mse"].item() == pytest.approx(2.0)


def test_named_features_replace_the_default_and_are_needed():
    widths = {"image": 4, "text": 4}
    named, default = bound(widths, widths, features=["text"]), bound(widths, widths)
    right, left = rows([1.0, 0, 0, 0]), rows([-1.0, 0, 0, 0])
    student, teacher = {"image": right, "text": right}, {"image": left, "text": right}
    assert named.needs == {"text"}
    assert named(student, teacher, progress=0.0)["feature_mse"].item() == 0.0
    assert default(student, teacher, progress=0.0)["feature_mse"].item() == pytest.approx(2.0)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ConfigError, match=r"no features(.*\n)*.*features=\["):
        bound({}, {})


def test_the_weight_ends_at_until():
    transfer = TRANSFERERS.build(dict(type="feature_mse", weight=0.7, until=0.5))
    assert [transfer.strength(p) for p in (0.0, 0.25, 0.499, 0.5, 0.75, 1.0)] == [
        0.7,
        0.7,
        0.7,
        0.0,
        0.0,
        0.0,
    ]
    to_the_end = TRANSFERERS.build(dict(type="feature_mse"))
    assert [to_the_end.strength(p) for p in (0.0, 0.999)] == [1.0, 1.0]
