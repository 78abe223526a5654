"""What steps of other sizes are foreseen to take, worked out by hand."""

from __future__ import annotations

import pytest

from compt.report.watch.costs import StepCosts, Steps, Timed

SMALL = Timed(iters=10, flops=10 * 100, seconds=10 * 3.0)
"""Steps of 100 FLOPs in 3 s: 1 s each and 0.02 s a FLOP, with MEDIUM."""
MEDIUM = Timed(iters=5, flops=5 * 200, seconds=5 * 5.0)
LARGE = Steps(iters=2, flops=2 * 1000)


def costs(*own, elsewhere=()):
    result = StepCosts(elsewhere)
    for index, steps in enumerate(own):
        result.take(str(index), steps)
    return result


def test_nothing_is_foreseen_before_anything_is_timed():
    assert costs().estimate([LARGE]) is None
    assert costs(Timed(0, 0, 5.0), Timed(3, 30, 0.0)).estimate([LARGE]) is None


def test_one_size_tells_the_most_that_others_take():
    only = costs(SMALL)
    assert only.estimate([LARGE]) == (2 * 30.0, True), "at the same FLOPs a second"
    smaller = Steps(iters=4, flops=4 * 10)
    assert only.estimate([smaller]) == (4 * 3.0, True), "no more than a step of the larger one"
    assert only.estimate([LARGE, smaller]) == (60 + 12, True)


def test_two_sizes_tell_the_fixed_time_from_that_for_flops():
    seconds, is_bound = costs(SMALL, MEDIUM).estimate([LARGE])
    assert (seconds, is_bound) == (pytest.approx(2 * (1 + 0.02 * 1000)), False)
    assert seconds < costs(SMALL).estimate([LARGE]).seconds


def test_sizes_that_are_nearly_the_same_are_one():
    alike = Timed(iters=10, flops=10 * 140, seconds=10 * 3.5)
    assert costs(SMALL, alike).estimate([LARGE]) == (pytest.approx(2 * 3.5 / 140 * 1000), True)


def test_no_time_is_negative():
    slower = Timed(iters=5, flops=5 * 200, seconds=5 * 30.0)  # ten times as long for twice as much
    assert costs(SMALL, slower).estimate([Steps(1, 0)]) == (0.0, False), "all of it is for FLOPs"


def test_half_of_a_step_at_most_is_fixed():
    faster = Timed(iters=5, flops=5 * 200, seconds=5 * 2.0)  # in less time than half as much
    assert costs(SMALL, faster).estimate([LARGE]) == (pytest.approx(2 * (1 + 1000 / 200)), False)


def test_three_sizes_are_fitted_by_least_relative_squares():
    third = Timed(iters=7, flops=7 * 300, seconds=7 * 7.0)
    assert costs(SMALL, MEDIUM, third).estimate([LARGE]).seconds == pytest.approx(42)
    best = costs(SMALL, MEDIUM, Timed(1, 300, 7.5)).estimate([Steps(1, 0), Steps(0, 1000)]).seconds
    assert best == pytest.approx(_least([(100, 3), (200, 5), (300, 7.5)]))


def _least(points):
    """The sum of a and 1000 b of the least squared relative error, by numpy."""
    import numpy as np

    rows = [[1 / seconds, size / seconds] for size, seconds in points]
    (a, b), *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)), rcond=None)
    return a + 1000 * b


def test_a_stage_that_is_timed_again_counts_once():
    again = costs(Timed(1, 100, 99.0), MEDIUM)
    again.take("0", SMALL)
    assert again.estimate([LARGE]).seconds == pytest.approx(42)


def test_another_run_tells_how_time_grows_and_this_one_its_pace():
    alone = costs(elsewhere=[SMALL, MEDIUM])
    assert alone.estimate([LARGE]) == (pytest.approx(42), False)
    twice_as_slow = Timed(iters=3, flops=3 * 100, seconds=3 * 6.0)
    assert costs(twice_as_slow, elsewhere=[SMALL, MEDIUM]).estimate([LARGE]) == (
        pytest.approx(2 * 42),
        False,
    )
    own = [Timed(1, 100, 1.0), Timed(1, 200, 2.0)]
    assert costs(*own, elsewhere=[SMALL, MEDIUM]).estimate([LARGE]).seconds == pytest.approx(20)
    assert costs(elsewhere=[SMALL]).estimate([LARGE]) == (60, True)
