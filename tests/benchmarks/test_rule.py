"""The rule, in cases worked out by hand."""

from __future__ import annotations

import math

import pytest
from measuring.rule import Gate, gate, judge, lower_bound, margins, standard_error

from compt.planning.rule import required_step

SPREAD = (0.05, -0.15, 0.15, -0.05, 0.0)
"""Mean 0, deviation 0.1118, and so a standard error of 0.05 and a one-sided bound of 0.1066."""
HALF_WIDTH = 2.13184679 * 0.05
"""By Student's t with four degrees of freedom."""


def around(*means: float, spread: tuple[float, ...] = SPREAD) -> list[list[float]]:
    """Qualities of members by seed, the first without noise and each after it with twice it.

    So members of different noise differ, and the same ones do not.
    """
    return [[mean + i * part for part in spread] for i, mean in enumerate(means)]


def level(*means: float) -> list[list[float]]:
    return [[mean] * 5 for mean in means]


def test_the_bound_of_a_mean_is_students() -> None:
    assert standard_error(SPREAD) == pytest.approx(0.05)
    assert lower_bound([1 + part for part in SPREAD]) == pytest.approx(1 - HALF_WIDTH)
    eight = [0.0, 1.0] * 4  # deviation 0.5345, error 0.1890, 1.8946 for seven degrees of freedom
    assert lower_bound(eight) == pytest.approx(0.5 - 1.894579 * 0.5345225 / math.sqrt(8))


def test_what_one_seed_or_a_diverged_one_says_of_a_mean() -> None:
    assert lower_bound([0.0]) == 0.0, "a run beside itself"
    assert lower_bound([0.5]) == -math.inf
    assert math.isnan(standard_error([0.5]))
    assert math.isnan(standard_error([0.5, -math.inf]))


@pytest.mark.parametrize(("gap", "is_open"), [(0.14, False), (0.16, True), (-0.16, False)])
def test_neighbours_differ_by_three_standard_errors(gap: float, is_open: bool) -> None:
    """Of their paired difference, which is 0.05 here."""
    opened = gate(around(1.0, 1.0 + gap), [0.0])
    assert opened.gaps == pytest.approx((gap,)) and opened.errors == pytest.approx((0.05,))
    assert (opened.apart, opened.open) == ((is_open,), is_open)


def test_one_pair_that_does_not_differ_closes_the_gate() -> None:
    opened = gate(around(0.0, 1.0, 1.1), [0.0])
    assert opened.apart == (True, False) and not opened.open


def test_equal_members_and_one_seed_are_no_family() -> None:
    assert not gate(level(1.0, 1.0), [0.0]).open
    assert not gate([[1.0], [2.0]], [0.0]).open


@pytest.mark.parametrize(
    ("longer", "catches_up"), [(1.9, False), (2.0, True), (2.1, True), (-math.inf, True)]
)
def test_the_smallest_must_not_catch_up(longer: float, catches_up: bool) -> None:
    """If it diverged, nobody knows."""
    opened = gate(level(0.0, 1.0, 2.0), [longer, longer])
    assert opened.apart == (True, True)
    assert (opened.catches_up, opened.open) == (catches_up, not catches_up)
    assert opened.to_json()["catches_up"] == catches_up


def test_a_gate_is_written_with_all_that_was_compared() -> None:
    opened = Gate((1.0,), (0.25,), smallest_longer=0.5, largest=2.0)
    assert opened.to_json() == {
        "gaps": (1.0,),
        "errors": (0.25,),
        "smallest_longer": 0.5,
        "largest": 2.0,
        "apart": (True,),
        "catches_up": False,
        "open": True,
    }


def test_margins_are_a_tenth_of_the_gap_to_the_nearer_neighbour() -> None:
    assert margins(level(0.0, 1.0, 3.0, 3.5)) == pytest.approx([0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize(
    ("gain", "as_good"), [(-0.1, False), (0.0, False), (0.01, True), (0.2, True)]
)
def test_noise_must_not_hide_more_than_the_margin(gain: float, as_good: bool) -> None:
    """The margin is 0.1 and the bound 0.1066 below the mean: equal means are not enough."""
    alone = level(0.0, 1.0)
    verdict = judge(alone, around(0.0, 1.0 + gain))[1]
    assert verdict.margin == pytest.approx(0.1)
    assert verdict.lower == pytest.approx(gain - HALF_WIDTH)
    assert verdict.as_good == as_good and verdict.is_wide


def test_a_loss_within_the_margin_and_without_noise_is_as_good() -> None:
    small, target = judge(level(0.0, 1.0), level(0.0, 0.95))
    assert target.as_good and not target.is_wide
    assert small.as_good and small.in_order and not small.is_wide, "the run alone itself"
    assert not judge(level(0.0, 1.0), level(0.0, 0.85))[1].as_good


@pytest.mark.parametrize(
    ("source", "required"),
    [(-0.5, 0.8), (0.0, 0.8), (0.125, 0.8), (0.25, 0.75), (0.75, 0.25), (1.0, 0.0), (1.5, 0.0)],
)
def test_the_step_that_is_asked_for(source: float, required: float) -> None:
    """Alone 0 and 1: most of it, what is left of it, and nothing."""
    assert required_step(1.0, 0.0, source) == pytest.approx(required)


@pytest.mark.parametrize(
    ("source", "target", "in_order"),
    [
        (0.0, 0.79, False),
        (0.0, 0.81, True),
        (0.25, 0.99, False),
        (0.25, 1.0, True),
        (1.5, 1.5, False),
        (1.5, 1.4, False),
        (1.5, 1.6, True),
    ],
)
def test_the_order_is_kept(source: float, target: float, in_order: bool) -> None:
    assert judge(level(0.0, 1.0), level(source, target))[1].in_order == in_order


def test_a_step_within_the_noise_is_no_order() -> None:
    """0.1 above a source that has overtaken its target, with a bound of 0.1066."""
    verdict = judge(level(0.0, 1.0), around(1.5, 1.6))[1]
    assert verdict.required_step < 0.1 < verdict.gain and verdict.as_good
    assert verdict.step_lower == pytest.approx(0.1 - HALF_WIDTH) and not verdict.in_order


def test_a_chain_that_stops_and_pads_is_as_good_and_not_in_order() -> None:
    verdicts = judge(level(0.0, 1.0, 2.0), level(2.0, 2.0, 2.0))
    assert all(verdict.as_good for verdict in verdicts)
    assert [verdict.in_order for verdict in verdicts] == [True, False, False]
    assert [verdict.to_json()["in_order"] for verdict in verdicts] == [True, False, False]


def test_seeds_are_paired() -> None:
    """Noise that both share is none, so members as noisy as this are as good."""
    noise = [3.0, -2.0, 5.0, 0.0, -6.0]
    alone = [[mean + part for part in noise] for mean in (0.0, 1.0)]
    chain = [alone[0], [value - 0.05 for value in alone[1]]]
    verdict = judge(alone, chain)[1]
    assert verdict.lower == pytest.approx(-0.05) and verdict.as_good
    with pytest.raises(ValueError, match="longer"):
        judge(alone, [alone[0], alone[1][:4]])
