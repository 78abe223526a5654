"""The law of losses, on curves that it made itself."""

from __future__ import annotations

import numpy as np
import pytest

from compt.planning.law import ALPHAS, FEWEST_POINTS, Curve, fit
from compt.planning.rates import Schedule
from tests.planning.test_rates import TRAPEZOID

SCHEDULE = Schedule(TRAPEZOID)
ALPHA = float(ALPHAS[12])
FAMILY = {"a": (1.6, 6.0, 1.0), "b": (1.3, 6.6, 1.4), "c": (1.0, 7.0, 1.2)}
"""L0, A and C of three members, which share ALPHA and kappa 1."""


def loss(name: str, length: int, iteration: float) -> float:
    """By the law, written anew: L0 + (A + C * rate) * S1^-alpha."""
    bottom, fall, of_rate = FAMILY[name]
    rates = SCHEDULE.rates(length)
    done = round(iteration / length * len(rates))
    s1 = rates[:done].sum() * length / len(rates)
    return bottom + (fall + of_rate * rates[done - 1]) * s1**-ALPHA


def curve(name: str, length: int, noise: np.ndarray | float = 0.0, evaluations: int = 8) -> Curve:
    at = length * np.arange(1, evaluations + 1) / evaluations
    at = at[at >= 0.25 * length]
    losses = np.array([loss(name, length, iteration) for iteration in at])
    return Curve(length, SCHEDULE.rates(length), at, losses * (1 + noise))


def test_the_law_recovers_its_parameters():
    """Also what it says of a member 64 times as long."""
    laws = fit({name: [curve(name, n) for n in (100, 200, 400)] for name in FAMILY}, samples=2)
    assert laws.alphas[0] == pytest.approx(ALPHA) and laws.kappas[0] == 1
    for name, parameters in FAMILY.items():
        assert laws.parameters[name][0] == pytest.approx(parameters, rel=5e-3)
        assert laws.errors[name] < 1e-3
        finals = laws.finals(name, SCHEDULE, [400, 25_600])[0]
        assert finals == pytest.approx([loss(name, n, n) for n in (400, 25_600)], rel=1e-3)


def test_noisy_runs_foretell_longer_ones():
    """Seeds that differ by half a per cent, and eight times the longest pilot."""
    random = np.random.default_rng(1)
    noise = {name: 0.005 * random.standard_normal(4) for name in FAMILY}
    laws = fit(
        {
            name: [curve(name, n, own) for n, own in zip((128, 256, 512, 512), noise[name])]
            for name in FAMILY
        }
    )
    for name in FAMILY:
        finals = laws.finals(name, SCHEDULE, [512, 4096])
        goal = loss(name, 4096, 4096)
        assert finals[0, 1] == pytest.approx(goal, rel=0.05)
        low, high = np.quantile(finals[1:, 1], [0.02, 0.98])
        assert low < goal < high
        spread = finals[1:].std(0)
        assert spread[1] > 1.5 * spread[0], "less is known of what is further away"


def test_one_bad_point_is_not_believed():
    curves = {"a": [curve("a", n) for n in (100, 200, 400)]}
    clean = fit(curves, samples=1).finals("a", SCHEDULE, [1600])[0, 0]
    curves["a"][1].losses[-2] *= 1.5
    assert fit(curves, samples=1).finals("a", SCHEDULE, [1600])[0, 0] == pytest.approx(
        clean, rel=0.02
    )


def test_a_single_short_run_is_fitted_and_not_trusted():
    """No loss is below 0 and none rises, whatever so few points come to."""
    few = curve("a", 100, evaluations=5)
    assert len(few.losses) == FEWEST_POINTS
    finals = fit({"a": [few]}).finals("a", SCHEDULE, [100, 800, 51_200])
    assert np.isfinite(finals).all() and (finals > 0).all() and (np.diff(finals) <= 0).all()
    assert finals[1:, 1].std() > 0


def test_draws_are_the_same_each_time():
    curves = {"a": [curve("a", n, 0.01) for n in (100, 200)]}
    first, second = (fit(curves, samples=20).finals("a", SCHEDULE, [400]) for _ in range(2))
    assert (first == second).all()
