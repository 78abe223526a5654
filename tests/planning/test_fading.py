"""How long a grown member has to be trained, by what its source is worth."""

from __future__ import annotations

import pytest

from compt.config import load_config
from compt.planning.auto import fadings
from compt.planning.fading import FROM_END, FROM_PLATEAU, Fading


@pytest.mark.parametrize("fading", [Fading(0.0), Fading(0.5), Fading(0.92), Fading(0.65, 0.5)])
@pytest.mark.parametrize("skipped", [0.0, 0.3, 0.9])
def test_one_undoes_the_other(fading, skipped):
    for worth in (skipped, 0.95, 1.0):
        share = fading.share_for(worth, skipped)
        if share == worth > 0:
            continue  # as from scratch, which is more than the law knows of
        assert fading.worth_after(share, skipped) == pytest.approx(worth)


def test_by_hand():
    assert Fading(0.0).share_for(1.0, 0.5) == 0.5, "nothing fades: what is left"
    assert Fading(0.8).share_for(1.0, 0.5) == pytest.approx(0.5 / 0.6)
    assert Fading(0.8).share_for(1.0, 0.0) == 1.0, "a source that is worth nothing"
    assert Fading(0.8).share_for(1.0, 1.2) == 0.0, "a source that is better already"
    assert Fading(0.9).share_for(1.5, 0.5) == 1.5, "no more than from scratch"
    assert Fading(1.3).share_for(1.1, 1.0) == pytest.approx(1.1), "above 1 is reckoned as 0.99"
    assert Fading(0.99).worth_after(1.0, 0.5) == pytest.approx(1.005), "nearly all is overwritten"
    assert Fading(0.6, power=0.5).worth_after(0.4, 0.25) == pytest.approx(0.25 + 0.4 * 0.7)


def test_it_moves_by_its_deviation_and_not_below_nothing():
    fading = Fading(0.5, power=0.5, deviation=0.2)
    assert fading.moved(1) == Fading(pytest.approx(0.7), 0.5, 0.2)
    assert fading.moved(-3).share == 0.0
    assert str(fading) == "0.50 ± 0.20"


SCHEDULE = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.1),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.6, end=1.0),
]
NEVER = dict(decay=False, average=dict(type="ema", half_life=0.1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [FROM_END] * 3),
        (dict(trunk=True), [FROM_END] * 3),
        (dict(grown=NEVER), [FROM_END] * 3),
        (dict(trunk=True, grown=NEVER), [FROM_END, FROM_END, FROM_PLATEAU]),
        (
            dict(trunk=True, param_scheduler=SCHEDULE[:1], average=NEVER["average"]),
            [FROM_END, FROM_PLATEAU, FROM_PLATEAU],
        ),
    ],
)
def test_hops_between_plateaus_are_those_where_neither_member_decays(toy, changes, expected):
    toy |= dict(param_scheduler=SCHEDULE) | changes
    assert list(fadings(load_config(toy).stages)) == expected
