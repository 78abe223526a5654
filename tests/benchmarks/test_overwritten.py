"""What stages overwrite of what their sources are worth, from the searches of rows."""

from __future__ import annotations

import math

import pytest
from measuring.overwritten import deviation, fitted, miss, points
from measuring.tables import overwritten_table

from compt.planning.fading import worth_after


def row(iters: int, fading: float, source: float = 0.5) -> dict:
    """A row of one hop whose quality rises by one a doubling, by a law that is known."""
    curve = {str(iters // 4): -2.0, str(iters // 2): -1.0, str(iters): 0.0, str(2 * iters): 1.0}
    shares = (0.25, 0.5, 1.0)

    goal = math.log2(1.0)
    gains = {share: math.log2(worth_after(share, source, fading)) - goal for share in shares}
    tried = {f"{share:g} at 1": gain for share, gain in gains.items()}
    tried["0.5 at 0.5"] = gains[0.5] - 0.3
    return {
        "iters": iters,
        "length": iters / 10,
        "unit": "units",
        "members": [{"name": "a", "alone_flops": 1.0}, {"name": "b", "alone_flops": 3.0}],
        "skipped": [0.0, source],
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
    assert miss(found, 0.8) == pytest.approx(0, abs=1e-9)
    assert miss(found, 0.7) == pytest.approx(0.05 * ((0.0625 + 0.25 + 1) / 3) ** 0.5)


def test_hops_that_differ_have_a_deviation():
    both = [*points(row(100, 0.8)), *points(row(200, 0.9))]
    assert deviation(both) == pytest.approx(0.005**0.5)
    assert 0.8 < fitted(both) < 0.9


def test_the_table_foretells_each_row_from_the_others():
    table = overwritten_table([row(100, 0.8), row(200, 0.8)])
    assert "c = 0.80, 0.00 its" in table and "10 units by 0.000" in table
    # b needs 0.5 / (1 - 0.8 * 0.5) of its length
    assert f"foretells at {4 / (1 + 3 * 0.5 / 0.6):.2f}x (1.20x at equal quality)" in table
    assert "| a -> b | 100 | 0.50 | 0.25 | 0.65 | 0.65 | 0.80 |" in table
    assert "from the other rows" not in overwritten_table([row(100, 0.8)])
    assert overwritten_table([{"members": [], "search": None}]) == ""
    plateau = row(100, 0.2) | {"trunk": True}
    assert overwritten_table([row(100, 0.8), plateau]) == overwritten_table([row(100, 0.8)])
