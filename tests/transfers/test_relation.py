"""Relations keep the contract, and are as worked out by hand."""

from __future__ import annotations

import pytest
import torch

from compt import TrainingError
from compt.testing import TransfererContract
from compt.transfers.relation import relation_distance
from tests.transfers.features import rows


class TestRelation(TransfererContract):
    transfer = dict(type="relation", schedule="linear", until=0.9)


def test_relation_by_hand():
    """The cosines of two orthogonal samples and of two equal ones differ by 1."""
    student, teacher = rows([1.0, 0.0], [0.0, 2.0]), rows([1.0, 1.0, 0.0], [5.0, 5.0, 0.0])
    assert relation_distance(student, teacher).item() == pytest.approx(1.0)
    third = rows(
        [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
    )  # cosines 0, r, r with r = sqrt(1/2) against 1, 1, 1
    r = 0.5**0.5
    expected = (1 + 2 * (1 - r) ** 2) / 3
    assert relation_distance(third, torch.ones(3, 4, dtype=torch.float64)).item() == pytest.approx(
        expected
    )


def test_relation_does_not_see_width_scale_or_rotation():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(9, 5, generator=generator, dtype=torch.float64)).Q
    assert relation_distance(features, 3 * features @ rotation.T).item() == pytest.approx(
        0.0, abs=1e-20
    )


def test_relation_of_tokens_is_that_of_their_means():
    tokens = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    features = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    assert relation_distance(tokens, features) == relation_distance(tokens.mean(1), features)


def test_relation_of_one_sample_says_so():
    with pytest.raises(TrainingError, match="the batch has one"):
        relation_distance(rows([1.0]), rows([1.0]))
