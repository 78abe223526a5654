"""What a chain is held against, in cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from measuring.controls import by_recipe, largest_for, padded, smallest_longer
from measuring.family import PUBLISHED

from tests.benchmarks.worlds import ITERS, FakeBench, World

COSTS = [1.0, 2.0, 8.0]
NAMES = ["a", "b", "c"]


def test_the_best_chain_that_stops_and_pads() -> None:
    """By hand.

    Goals are 0 - 0.01, 0.9 - 0.01 and 1 - 0.01. The smallest gets to 0.99 after 2 ** 3.96 budgets,
    the next after 2 ** 0.36: 11 alone, by 1 + 2 * 1.2834.
    """
    curves = [{512: level - 0.25, 1024: level} for level in (0.0, 0.9, 1.0)]
    pads = padded(NAMES, COSTS, [0.0, 0.9, 1.0], curves, 1024)
    assert pads.member == "b" and not pads.measured, "carried on"
    assert pads.longer == pytest.approx(2**0.36)
    assert pads.ratio == pytest.approx(11 / (1 + 2 * 2**0.36))


def test_a_padded_chain_may_be_grown_up_to_where_it_stops() -> None:
    """At 1 and 0.5 in place of 1 and 2, and then as above."""
    curves = [{512: level - 0.25, 1024: level} for level in (0.0, 0.9, 1.0)]
    pads = padded(NAMES, COSTS, [0.0, 0.9, 1.0], curves, 1024, [1.0, 0.5, 4.0])
    assert pads.ratio == pytest.approx(11 / (1 + 0.5 + 2 * (2**0.36 - 1)))


def test_a_length_that_was_trained_is_told_from_one_that_was_not() -> None:
    """The smallest, trained 8 times as long, gets to 0.75 - 0.01 in between."""
    curves = [{512: -0.25, 1024: 0.0, 8192: 0.75}, {512: 0.4, 1024: 0.7}]
    pads = padded(["a", "b"], [1.0, 8.0], [0.0, 0.7], curves, 1024)
    assert pads.measured and pads.longer == pytest.approx(8 ** (0.63 / 0.75))


def test_members_that_never_get_there_score_nothing() -> None:
    flat = [{512: 0.0, 1024: 0.0}] * 2
    assert padded(["a", "b"], [1.0, 8.0], [0.0, 0.7], flat, 1024).ratio == 0


def test_the_smallest_is_trained_longer_at_the_better_of_two_rates() -> None:
    for best, rate in ((0, 1.0), (-2, 0.5)):
        bench = FakeBench(World(best=(best, 0, 0)))
        jobs = smallest_longer(bench, ITERS, 1.0)
        assert {job.rate for job in jobs} == {rate}
        assert [(job.iters, job.seed) for job in jobs] == [(8 * ITERS, 1), (8 * ITERS, 2)]
    bench = FakeBench(World(diverges=lambda job: job.rate == 1.0))
    assert {job.rate for job in smallest_longer(bench, ITERS, 1.0)} == {0.5}


def test_the_largest_is_compared_with_the_chains_on_the_same_seeds() -> None:
    """Twice the length is worth 0.25; seeds 3 to 5 of the chain do not count."""
    bench = FakeBench(World(noise=lambda job: job.seed))
    against = [1.0 + 1, 1.0 + 2, 99.0, 99.0, 99.0]
    reached = largest_for(bench, ITERS, 1.0, against, 2 * ITERS)
    assert reached.gain == pytest.approx(0.25) and reached.flops == 4 * 2 * ITERS
    assert reached.iters == 2 * ITERS and reached.values == pytest.approx((-2.25, -3.25))


def alone(bench: FakeBench) -> list[list[Any]]:
    """Every member alone, at the best rate, by judging seed."""
    jobs = [[bench.alone(i, ITERS, 1.0, seed) for seed in range(1, 6)] for i in range(3)]
    bench.run([job for of_member in jobs for job in of_member])
    return jobs


def test_the_chain_as_published_has_its_ways_budgets_and_the_members_own_rates() -> None:
    bench = FakeBench(World())
    reached = by_recipe(bench, PUBLISHED, ITERS, [1.0, 0.8, 0.6], alone(bench))
    assert [one.iters for one in reached] == [ITERS, 192, 128]
    grown = bench.grown_jobs()
    assert [(job.rate, job.seed) for job in grown] == [(0.8, 1), (0.8, 2), (0.6, 1), (0.6, 2)]
    assert all(
        job.ways == {"grower": {"type": "leading_block"}, "transfer": {"type": "feature_mse"}}
        for job in grown
    )
    assert reached[0].gain == 0 and reached[1].gain < 0
    assert reached[1].elsewhere == {"far/loss": pytest.approx(2 * reached[1].gain)}


def test_nothing_grows_from_a_published_member_that_diverged() -> None:
    bench = FakeBench(World(diverges=lambda job: job.source is not None and job.seed == 2))
    reached = by_recipe(bench, PUBLISHED, ITERS, [1.0] * 3, alone(bench))
    assert [one.gain for one in reached] == [0.0, -math.inf]
    assert math.isnan(reached[1].values[1]) and not math.isnan(reached[1].values[0])


def test_a_family_may_leave_the_published_chain_out() -> None:
    bench = FakeBench(World())
    assert by_recipe(bench, {}, ITERS, [1.0] * 3, []) == [] and not bench.trained
