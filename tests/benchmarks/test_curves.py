"""How long a member alone takes to a quality, in cases worked out by hand."""

from __future__ import annotations

import math

import pytest
from measuring.curves import length_to, skip_bound, worth

RISING = {400: 3.0, 100: 1.0, 200: 2.0}


@pytest.mark.parametrize(
    ("quality", "length"),
    [
        (0.5, 100),
        (1.0, 100),
        (1.5, 100 * math.sqrt(2)),
        (2.0, 200),
        (2.5, 200 * math.sqrt(2)),
        (4.0, 800),
        (-math.inf, 100),
    ],
)
def test_quality_is_linear_in_the_logarithm_of_the_length(quality: float, length: float) -> None:
    """No less than the shortest, and carried on beyond the longest."""
    assert length_to(quality, RISING) == pytest.approx(length)


def test_a_curve_that_dips_is_crossed_where_it_first_comes_to_the_quality() -> None:
    assert length_to(1.5, {100: 1.0, 200: 2.0, 400: 1.2, 800: 3.0}) < 200


@pytest.mark.parametrize(
    "curve",
    [{100: 1.0}, {100: 1.0, 200: 1.0}, {100: 1.5, 200: 1.0}, {100: 1.0, 200: 1.0 + 1e-9}, {}],
)
def test_some_curves_never_come_there(curve: dict[int, float]) -> None:
    """One that all but stands still would take longer than a number can say."""
    assert length_to(2.0, curve) == math.inf


def test_lengths_that_diverged_are_left_out() -> None:
    assert length_to(1.5, {50: -math.inf, **RISING}) == pytest.approx(100 * math.sqrt(2))
    assert length_to(1.5, {100: -math.inf}) == math.inf


def test_what_a_quality_is_worth_is_read_beside_the_same_seeds() -> None:
    """Judging seeds that are worse by 0.5 are so at any length."""
    assert worth(2.5, RISING, 400, 2.5) == 1.0
    assert worth(1.5, RISING, 400, 2.5) == 0.5
    assert worth(2.0, RISING, 400, 3.0) == 0.5


def test_the_bound_of_what_sources_are_worth() -> None:
    """7 alone; 1 + 2 * 3/4 + 4 * 1/2, and half a budget more for the smallest."""
    assert skip_bound([1, 2, 4], [0.0, 0.25, 0.5]) == pytest.approx(7 / 4.5)
    assert skip_bound([1, 2, 4], [-0.5, 0.25, 0.5]) == pytest.approx(7 / 5)
