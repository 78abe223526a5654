"""Rates of schedules over stages of any length."""

from __future__ import annotations

import numpy as np
import pytest

from compt.errors import ConfigError
from compt.planning.rates import STEPS, Schedule

TRAPEZOID = [
    dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=0.6, end=1.0),
]


def test_a_trapezoid_at_any_length():
    schedule = Schedule(TRAPEZOID)
    rates = schedule.rates(128)
    assert len(rates) == STEPS
    assert rates[0] == pytest.approx(1e-3) and rates[STEPS // 2] == 1
    assert rates[int(0.8 * STEPS)] == pytest.approx(0.5, abs=0.01) and rates[-1] < 0.01
    assert schedule.rates(10**9) is rates, "fractions are the same at every length"
    assert schedule.warmup_end(1000) == pytest.approx(200, abs=5)


def test_whole_numbers_are_iterations():
    """A warm-up of 100 iterations is a tenth of 1,000, and beyond the end of 50."""
    schedule = Schedule(dict(type="LinearLR", start_factor=0.1, begin=0, end=100))
    assert schedule.warmup_end(1000) == pytest.approx(100, abs=3)
    assert schedule.rates(100_000)[1] == 1
    assert schedule.rates(50)[0] < 0.3, "relative to the highest that it comes to"


def test_cosine_and_no_schedule():
    rates = Schedule(dict(type="CosineAnnealingLR", eta_min=0.0, begin=0.0, end=1.0)).rates(100)
    assert np.allclose(rates[[0, STEPS // 2]], [1, 0.5], atol=0.01) and rates[-1] < 1e-4
    assert (Schedule([]).rates(10) == 1).all()


def test_what_follows_evaluations_cannot_be_foretold():
    with pytest.raises(ConfigError, match="follows evaluations"):
        Schedule(dict(type="ReduceOnPlateauLR", monitor="loss")).rates(10)
