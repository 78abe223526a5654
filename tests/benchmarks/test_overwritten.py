"""What stages overwrite of what their sources are worth, from the searches of rows."""

from __future__ import annotations

import math

import pytest
from measuring.overwritten import (
    ANEW,
    BEFORE_DECAY,
    PLATEAUS,
    deviation,
    fitted,
    kinds,
    miss,
    points,
)
from measuring.show import text_of
from measuring.tables import overwritten_table

from compt.planning.fading import Fading


def row(iters: int, fading: float, source: float = 0.5, power: float = 1.0) -> dict:
    """A row of one hop whose quality rises by one a doubling, by a law that is known."""
    law = Fading(fading, power)
    curve = {
        str(iters // 8): -3.0,
        str(iters // 4): -2.0,
        str(iters // 2): -1.0,
        str(iters): 0.0,
        str(2 * iters): 1.0,
    }
    shares = (0.25, 0.5, 1.0)

    goal = math.log2(1.0)
    gains = {share: math.log2(law.worth_after(share, source)) - goal for share in shares}
    tried = {f"{share:g} at 1": gain for share, gain in gains.items()}
    tried["0.5 at 0.5"] = gains[0.5] - 0.3
    return {
        "iters": iters,
        "length": iters / 10,
        "unit": "units",
        "name": "family-smoke",
        "higher_is_better": True,
        "members": [
            {"name": "a", "alone_flops": 1.0, "alone": [math.log2(source)]},
            {"name": "b", "alone_flops": 3.0, "alone": [0.0]},
        ],
        "fractions": [1.0, 0.9],
        "ratio": 1.25,
        "equal_quality": 1.2,
        "curves": [{}, curve],
        "search": {"tried": [tried], "goals": [goal], "sources": [math.log2(source)]},
    }


def test_a_law_that_is_known_is_found():
    found = list(points(row(100, 0.8)))
    assert [point.share for point in found] == [0.25, 0.5, 1.0], "the best rate of each"
    assert [point.source for point in found] == [pytest.approx(0.5)] * 3
    assert [point.fading for point in found] == [pytest.approx(0.8)] * 3
    assert fitted(found) == pytest.approx(0.8) and deviation(found) == 0
    assert miss(found, {ANEW: 0.8}) == pytest.approx(0, abs=1e-9)
    assert miss(found, {ANEW: 0.7}) == pytest.approx(0.05 * ((0.0625 + 0.25 + 1) / 3) ** 0.5)


def test_hops_that_differ_have_a_deviation():
    both = [*points(row(100, 0.8)), *points(row(200, 0.9))]
    assert deviation(both) == pytest.approx(0.005**0.5)
    assert 0.8 < fitted(both) < 0.9


def test_the_table_foretells_each_row_from_the_others():
    table = overwritten_table([row(100, 0.8), row(200, 0.8)])
    assert "Stages that begin anew, s + b (1 - c s): c = 0.80, 0.00 its standard" in table
    # b needs 0.5 / (1 - 0.8 * 0.5) of its length
    foretold = 4 / (1 + 3 * 0.5 / 0.6)
    error = f"{foretold / 1.25 - 1:+.0%}"
    cells = f"10 units | 0.000 | {foretold:.2f}x | 1.25x | {error} | 1.20x |"
    assert f"| family, 2 members | {cells}" in table
    worths = [0.5 + share * 0.6 for share in (0.25, 1.0)]
    hop = f"100 | 0.50 | 0.25 to 1.00 | {worths[0]:.2f} to {worths[1]:.2f} | 0.80 to 0.80 |"
    assert f"| family, 2 members | a -> b | {hop}" in table
    assert "other rows" not in overwritten_table([row(100, 0.8)])
    assert overwritten_table([{"members": [], "search": None}]) == ""


def test_hops_from_plateau_to_plateau_have_a_law_of_their_own():
    """By hand: after half of its length, 0.25 + 0.5 (1 - 0.6 sqrt(0.25)) is 0.6."""
    way = {"trunk": True, "grown": {"decay": False}}
    plateau = row(100, 0.6, 0.25, power=0.5) | {"grown_by": [{"average": {}}, way]}
    assert kinds(plateau) == [PLATEAUS]
    found = list(points(plateau))
    assert [point.fading for point in found] == [pytest.approx(0.6)] * 3
    table = overwritten_table([row(200, 0.8), plateau])
    assert "From plateau to plateau, s + b (1 - c sqrt(s)): c = 0.60" in table
    assert "| a -> b | 100 | 0.25 | 0.25 to 1.00 | 0.42 to 0.95 | 0.60 to 0.60 |" in table
    assert "other rows" not in table, "each is the only one of its kind"


@pytest.mark.parametrize(
    ("first", "way", "kind"),
    [
        ({}, {"trunk": True, "grown": {"decay": False}}, BEFORE_DECAY),
        ({"average": {}}, {"trunk": False, "grown": {"decay": False}}, ANEW),
        ({"average": {}}, {"trunk": True}, ANEW),
        ({}, {}, ANEW),
        ({"average": {}}, {"trunk": True, "average": {}}, PLATEAUS),
    ],
)
def test_it_is_one_where_neither_decays_and_a_plateau_is_grown_from(first, way, kind):
    assert kinds(row(100, 0.8) | {"grown_by": [first, way]}) == [kind]


def test_only_the_way_that_a_hop_has_chosen_counts():
    chosen, other = {"trunk": False}, {"trunk": True}
    searched = row(100, 0.8) | {"grown_by": [{}, chosen]}
    tried = searched["search"]["tried"][0]
    by = {f"{key} by {text_of(chosen)}": gain for key, gain in tried.items()}
    by[f"0.5 at 1 by {text_of(other)}"] = 5.0
    searched["search"]["tried"] = [by]
    assert [point.fading for point in points(searched)] == [pytest.approx(0.8)] * 3
