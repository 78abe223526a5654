"""How long a grown member has to be trained, by what its source is worth."""

from __future__ import annotations

import pytest

from compt.planning.fading import share_for, worth_after


@pytest.mark.parametrize("fading", [0.0, 0.5, 0.92])
@pytest.mark.parametrize("skipped", [0.0, 0.3, 0.9])
def test_one_undoes_the_other(fading, skipped):
    for worth in (skipped, 0.95, 1.0):
        share = share_for(worth, skipped, fading)
        assert worth_after(share, skipped, fading) == pytest.approx(worth)


def test_by_hand():
    assert share_for(1.0, 0.5, 0.0) == 0.5, "nothing fades: what is left"
    assert share_for(1.0, 0.5, 0.8) == pytest.approx(0.5 / 0.6)
    assert share_for(1.0, 0.0) == 1.0, "a source that is worth nothing"
    assert share_for(1.0, 1.2) == 0.0, "a source that is better already"
    assert share_for(1.5, 0.5, 0.9) == 1.5, "no more than from scratch"
    assert share_for(1.1, 1.0, 1.3) == pytest.approx(1.1), "a fading above 1 is reckoned as 0.99"
    assert worth_after(1.0, 0.5, 0.99) == pytest.approx(1.005), "nearly all is overwritten"
