"""No transfer has no weight and no terms."""

from __future__ import annotations

from compt.registry import TRANSFERERS
from compt.testing import TransfererContract
from tests.transfers.features import rows


class TestNone(TransfererContract):
    transfer = dict(type="none")


def test_none_has_no_strength_and_no_terms():
    transfer = TRANSFERERS.build(dict(type="none"))
    assert not any(transfer.strength(i / 10) for i in range(11))
    assert transfer({"features": rows([1.0])}, {"features": rows([2.0])}, progress=0.0) == {}
