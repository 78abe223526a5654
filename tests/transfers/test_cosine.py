"""Cosine distances keep the contract, and are half of the squared distance."""

from __future__ import annotations

import pytest
import torch

from compt.testing import TransfererContract
from compt.transfers.cosine import cosine_distance
from compt.transfers.feature_mse import feature_distance
from tests.transfers.features import rows


class TestCosine(TransfererContract):
    transfer = dict(type="cosine", schedule="cosine")


def test_cosine_by_hand_and_half_of_the_squared_distance():
    assert cosine_distance(rows([1.0, 0.0]), rows([3.0, 4.0])).item() == pytest.approx(0.4)
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64).unbind(0)
    assert cosine_distance(student, teacher).item() == pytest.approx(
        feature_distance(student, teacher).item() / 2
    )
