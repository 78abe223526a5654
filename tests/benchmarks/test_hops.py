"""The search for budgets, on a bench where the least ones are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from measuring.family import CHOOSING
from measuring.hops import HIGHEST, LOWEST, SHARES, Search, search
from measuring.rates import STEP, sweep
from measuring.row import Rows

from tests.benchmarks.worlds import ITERS, FakeBench, World

NO_SPREADS = (0.0, 0.0, 0.0)
BY_EITHER = ({"grower": {"type": "lossless"}}, {"grower": {"type": "clone"}})


def searched(
    world: World, spreads: Sequence[float] = NO_SPREADS, **family: Any
) -> tuple[Search, FakeBench]:
    bench = FakeBench(world, **family)
    chosen, curves = Rows(bench).alone_until(ITERS)
    return search(bench, chosen, curves, spreads), bench


def test_the_least_budgets_are_found() -> None:
    """By hand.

    A goal is 0.5 - 0.05 * 0.5 or the like, which a member alone reaches after 0.933 of its budget.
    Its source is worth 0.25 and the tax is 0.125, so 0.808 is needed: 13/16. With that, the next
    source is at 0.4767, which is worth 0.2344, and 0.8236 is needed: 14/16.
    """
    result, bench = searched(World())
    assert result.recipe.fractions == (1.0, 13 / 16, 14 / 16)
    assert result.recipe.lr_mults == pytest.approx((1.0, 0.5, 0.5))
    assert result.reached == (True, True)
    for tried, least in zip(result.tried, (13, 14), strict=True):
        assert tried[f"{least / SHARES:g} at 0.5"] >= 0 > tried[f"{(least - 1) / SHARES:g} at 0.5"]
        assert len(tried) <= 8, "not the whole grid"
    assert result.flops == sum(job.flops for job in bench.grown_jobs()), "every run once"
    assert {job.seed for job in bench.trained} == set(CHOOSING)
    assert all(job.source.seed == job.seed for job in bench.grown_jobs())


def test_the_order_asks_for_more_where_a_source_is_better_than_alone() -> None:
    """Sources from a head start of tax -1 overtake: the next must not stay behind them."""
    bench = FakeBench(World(levels=(0.0, 0.5, 0.6), tax=-2.0))
    chosen, curves = Rows(bench).alone_until(ITERS)
    result = search(bench, chosen, curves, NO_SPREADS)
    assert result.recipe.fractions[1] == 1 / 16
    last = next(job for job in bench.grown_jobs() if job.index == 2)
    assert bench.quality_of(last.source) > 0.6, "overtaken"
    assert all(gain >= 0 for gain in result.tried[1].values()), "it stays above its source"


def test_a_member_that_no_budget_suffices_for_gets_the_most_there_is() -> None:
    """A tax of the whole budget on a source that is worth a quarter."""
    result, _ = searched(World(tax=1.0))
    assert result.recipe.fractions == (1.0, 1.25, 1.25) and result.reached == (False, False)


def test_a_member_may_take_longer_than_alone() -> None:
    """By hand: 0.933 of the budget is the goal, its source is worth 0.25, so 1.183 is needed.

    After 19/16 the next source is at 0.4767, which is worth 0.2344, and 1.199 is needed.
    """
    result, _ = searched(World(tax=0.5))
    assert result.recipe.fractions == (1.0, 19 / 16, 20 / 16) and result.reached == (True, True)


def test_a_source_worth_all_of_its_target_needs_the_least_there_is() -> None:
    result, _ = searched(World(tax=-1.0))
    assert result.recipe.fractions == (1.0, 1 / 16, 1 / 16) and result.reached == (True, True)


def test_budgets_and_rates_that_diverge_are_left_behind() -> None:
    world = World(
        diverges=lambda job: job.source is not None and (job.rate > 0.6 or job.iters < 800)
    )
    result, _ = searched(world)
    assert result.recipe.fractions == (1.0, 13 / 16, 14 / 16)
    assert result.recipe.lr_mults == pytest.approx((1.0, 0.5, 0.5))


@pytest.mark.parametrize("best", ["lossless", "clone"])
def test_every_hop_takes_the_best_of_the_choices_and_is_charged_for_the_others(best: str) -> None:
    """As if it were the family's own, at two rates of the others more a hop."""
    world = World(taxes={best: 0.0})
    result, bench = searched(world, choices=BY_EITHER)
    assert [ways["grower"]["type"] for ways in result.recipe.grown_by[1:]] == [best, best]
    alone, _ = searched(World(tax=0.0))
    assert result.recipe.fractions == alone.recipe.fractions
    assert result.flops == sum(job.flops for job in bench.grown_jobs()) > alone.flops
    others = [job for job in bench.grown_jobs() if job.ways["grower"]["type"] != best]
    assert [job.index for job in others] == [1] * 4 + [2] * 4
    assert len([setting for setting in result.tried[0] if f"grower={best}" not in setting]) == 2


def test_ways_are_compared_at_a_lower_rate_too() -> None:
    """One that is the better, and the worse at the member's own rate."""

    def too_fast(job: Any) -> float:
        is_fast = job.source is not None and job.rate > 0.9
        return -0.2 if is_fast and job.ways["grower"]["type"] == "clone" else 0.0

    result, _ = searched(World(taxes={"clone": 0.0}, noise=too_fast), choices=BY_EITHER)
    assert [ways["grower"]["type"] for ways in result.recipe.grown_by[1:]] == ["clone", "clone"]


def test_a_choice_that_diverges_is_not_taken() -> None:
    world = World(diverges=lambda job: (job.ways or {}).get("grower", {}).get("type") == "lossless")
    result, _ = searched(world, choices=BY_EITHER)
    assert [ways["grower"]["type"] for ways in result.recipe.grown_by[1:]] == ["clone", "clone"]


def test_a_first_member_trained_otherwise_than_alone_gets_what_it_needs_and_is_charged() -> None:
    """By hand: what is delivered is 0.05 worse, of which half of the margin of 0.05 makes up.

    So the first needs 2**(0.025 / 0.25) = 1.07 of its budget. The second, on whose curve it stands
    at 0.25 * 1.125, needs as much beyond the 0.125 of the tax, 0.92; the third, 0.94.
    """
    worse = World(noise=lambda job: -0.05 if "average" in (job.ways or {}) else 0.0)
    result, bench = searched(worse, in_chain={"average": {"type": "ema"}})
    assert result.recipe.fractions == (18 / 16, 15 / 16, 15 / 16)
    assert result.recipe.lr_mults[0] == 1.0 and len(result.first) >= 4
    in_chain = [job for job in bench.trained if job.ways]
    assert {job.ways["average"]["type"] for job in in_chain} == {"ema"}
    assert result.flops == sum(job.flops for job in in_chain), "the first's search too"
    unchanged, _ = searched(World())
    assert unchanged.first == {}


def test_what_only_grown_members_have_leaves_the_first_as_alone() -> None:
    """Its budget is not searched for, and of the keys of ways it has those of its own."""
    as_grown = {"average": {"type": "ema"}}
    result, bench = searched(World(), as_grown=as_grown)
    assert result.recipe.fractions == (1.0, 13 / 16, 14 / 16) and result.first == {}
    assert {"average" in job.ways for job in bench.grown_jobs()} == {True}
    assert not [job for job in bench.trained if job.source is None and job.ways]


def test_a_sure_search_leaves_room_for_the_interval_that_judges() -> None:
    """By hand: t(0.95, 7) = 1.895, times 0.05 times sqrt(2 / 8) is 0.0474 of the margin of 0.05.

    So the goal is 0.4974, which the member alone has after 0.993 of its budget; 0.868 are left to
    do, 14/16. The next source is at 0.5007, worth 0.251, and 0.867 are left.
    """
    result, _ = searched(World(), spreads=(0.05, 0.05, 0.05), sure=True)
    assert result.goals[0] == pytest.approx(0.5 - 0.05 + 1.8946 * 0.025, abs=1e-4)
    assert result.recipe.fractions == (1.0, 14 / 16, 14 / 16)
    unsure, _ = searched(World(), spreads=(0.05, 0.05, 0.05))
    assert unsure.recipe.fractions == (1.0, 13 / 16, 14 / 16)


@pytest.mark.parametrize(("best", "end"), [(9, HIGHEST), (-99, LOWEST)])
def test_a_grown_members_rates_have_ends(best: int, end: int) -> None:
    result, _ = searched(World(best_mult=best, loss_by_step=1e-5))
    assert result.recipe.lr_mults[1] == pytest.approx(STEP**end)


def test_a_target_whose_curve_stands_still_is_searched_all_the_same() -> None:
    """Its source has overtaken it, and is worth more than can be said."""
    bench = FakeBench(World())
    chosen = sweep(bench, ITERS, [1.0] * 3)
    flat = [{ITERS // 2: -1.0, ITERS: -1.0}] * 3
    assert search(bench, chosen, flat, NO_SPREADS).recipe.fractions == (1.0, 13 / 16, 14 / 16)


def test_seeds_of_the_choice_hold_for_the_goal() -> None:
    """Noise that both seeds share with the members alone changes nothing."""
    plain, _ = searched(World())
    noisy, _ = searched(replace(World(), noise=lambda job: 0.1 * math.sin(job.seed)))
    assert noisy.recipe.fractions == plain.recipe.fractions
