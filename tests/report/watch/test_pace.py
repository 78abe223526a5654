"""How fast a run is, and how long it will take; and histories that stay short."""

from __future__ import annotations

from itertools import pairwise

import pytest

from compt.report.watch.pace import WINDOW, Pace
from compt.report.watch.thinning import MOST, Thinned


@pytest.fixture
def clock():
    """A clock that stands still: its time is its only entry."""
    return [100.0]


@pytest.fixture
def pace(clock):
    return Pace(lambda: clock[0])


def test_nothing_is_known_before_two_marks(pace, clock):
    pace.mark(0, 0)
    assert (pace.samples_per_second, pace.seconds_for(100)) == (None, None)
    clock[0] += 2
    pace.mark(20, 4)
    assert (pace.samples_per_second, pace.seconds_for(100)) == (2, 10)


def test_evaluations_are_no_training_and_are_foreseen(pace, clock):
    pace.mark(0, 0)
    for samples in (1, 2):
        clock[0] += 10
        pace.evaluating()
        clock[0] += 5
        pace.evaluated()
        pace.evaluated()  # told twice
        pace.mark(100 * samples, samples)
    assert pace.samples_per_second == 0.1
    assert pace.seconds_for(100) == 10 + 5


def test_the_time_left_falls_between_two_marks(pace, clock):
    pace.mark(0, 0)
    clock[0] += 1
    pace.mark(10, 1)
    clock[0] += 4
    assert pace.seconds_for(100) == 6
    clock[0] += 100
    assert pace.seconds_for(100) == 0


def test_the_rate_is_that_of_the_last_minute(pace, clock):
    pace.mark(0, 0)
    for done in range(1, 11):
        clock[0] += WINDOW
        pace.mark(done, done)
    clock[0] += WINDOW / 2
    pace.mark(40, 40)
    assert pace.samples_per_second == 31 / (1.5 * WINDOW)


def test_a_stage_that_goes_back_is_measured_anew(pace, clock):
    for done in (0, 100):
        pace.mark(done, done)
        clock[0] += 1
    pace.mark(50, 50)
    clock[0] += 2
    pace.mark(60, 60)
    assert pace.samples_per_second == 5


def test_a_new_stage_has_a_rate_of_its_own(pace, clock):
    pace.mark(0, 0)
    clock[0] += 1
    pace.mark(50, 50)
    assert pace.window == (1, 50, 50)
    pace.evaluating()
    clock[0] += 1
    pace.begin()
    assert (pace.samples_per_second, pace.seconds_for(100)) == (None, None)
    assert pace.window == (0, 0, 0)
    assert pace.with_evaluations(10) == 20, "as much for evaluations as so far"


def test_a_long_history_stays_short_and_true():
    history = Thinned()
    for x in range(10_000):
        history.add(x, 2 * x)
    points = history.points
    assert MOST <= len(points) <= 2 * MOST
    assert all(y == 2 * x for x, y in points)
    steps = {b[0] - a[0] for a, b in pairwise(points[:-1])}
    assert len(steps) == 1, "each point stands for as many"
    assert points[-1][0] > 9_900, "what is no whole group yet is in it"
    again = Thinned(points)
    again.add(10_000, 20_000)
    assert again.points[-1] == (10_000, 20_000)


def test_a_history_forgets_what_is_to_be_repeated():
    history = Thinned()
    for x in range(300):
        history.add(x, x)
    history.cut(100)
    assert max(x for x, _ in history.points) <= 100
    history.add(101, 0)
    assert history.points[-1] == (101, 0)
