"""Sweeps of learning rates on a bench whose best rate is known."""

from __future__ import annotations

import math

import pytest
from measuring.family import CHOOSING
from measuring.rates import STEP, sweep

from compt.errors import DivergedError
from tests.benchmarks.worlds import ITERS, FakeBench, World


def steps(by_rate) -> list[int]:
    return sorted(round(math.log(rate, STEP)) for rate in by_rate)


@pytest.mark.parametrize(
    ("best", "tried"),
    [(0, [-1, 0, 1]), (3, [-1, 0, 1, 2, 3, 4]), (-2, [-3, -2, -1, 0, 1])],
)
def test_a_sweep_ends_with_a_worse_rate_on_both_sides(best: int, tried: list[int]) -> None:
    bench = FakeBench(World(best=(best, 0, 0)))
    swept = sweep(bench, ITERS, [1.0, 1.0, 1.0])
    assert steps(swept.qualities[0]) == tried
    assert steps(swept.qualities[1]) == [-1, 0, 1], "each member by itself"
    assert swept.rates == pytest.approx([STEP**best, 1.0, 1.0])
    assert swept.best == pytest.approx([0.0, 0.5, 1.0])


def test_a_sweep_is_charged_with_every_run_on_both_seeds() -> None:
    bench = FakeBench(World(best=(1, 0, 0)))
    swept = sweep(bench, ITERS, [1.0, 1.0, 1.0])
    assert swept.flops == 2 * ITERS * (4 * 1.0 + 3 * 2.0 + 3 * 4.0)
    assert {job.seed for job in bench.trained} == set(CHOOSING)


def test_a_rate_that_diverges_is_the_worst_and_the_sweep_goes_on() -> None:
    """One of two seeds is enough."""
    world = World(best=(-2, 0, 0), diverges=lambda job: job.rate > 0.9 and job.seed == CHOOSING[1])
    swept = sweep(FakeBench(world), ITERS, [1.0, 0.5, 0.5])
    assert steps(swept.qualities[0]) == [-3, -2, -1, 0, 1]
    assert swept.qualities[0][1.0] == -math.inf and swept.rates[0] == pytest.approx(0.5)


def test_where_all_rates_diverge_lower_ones_are_tried_and_not_forever() -> None:
    swept = sweep(FakeBench(World(diverges=lambda job: job.rate > 0.3)), ITERS, [1.0] * 3)
    assert swept.rates[0] == pytest.approx(STEP**-4), "the highest of those that do not"
    with pytest.raises(DivergedError, match="Every learning rate down to"):
        sweep(FakeBench(World(diverges=lambda job: True)), ITERS, [1.0] * 3)


def test_without_a_search_the_rates_are_those_of_the_file() -> None:
    bench = FakeBench(World(best=(4, 0, 0)))
    swept = sweep(bench, ITERS, [1.0, 2.0, 1.0], searching=False)
    assert swept.rates == [1.0, 2.0, 1.0] and len(bench.trained) == 6
