"""The cheapest chain of a family whose curves are known, against trying all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest

from compt.planning.design import WORTHS, Candidate, Family, Stop
from compt.planning.fading import Fading
from compt.planning.forecast import forecast, skip_bound
from compt.planning.law import Laws
from compt.planning.lengths import Lengths
from compt.planning.rates import Schedule

LENGTH = 1000
CONSTANT = Schedule([])
FLOPS = (1.0, 3.0, 9.0)
BOTTOMS, FALLS = (1.8, 1.4, 1.0), (8.0, 9.0, 10.0)


def laws(bottoms: Sequence[float] = BOTTOMS, falls: Sequence[float] = FALLS, spread=0.0) -> Laws:
    """loss = bottom + fall * n^-0.5, the last draws with other bottoms."""
    draws = np.array([0.0, *np.linspace(-spread, spread, 20)])
    parameters = {
        name: np.stack([bottom + draws * (1, -1, -2)[i], np.full(21, fall), np.zeros(21)], axis=1)
        for i, (name, bottom, fall) in enumerate(zip("abc", bottoms, falls, strict=True))
    }
    return Laws(np.full(21, 0.5), np.ones(21), parameters, dict.fromkeys("abc", 0.001))


def family(wanted: str = "abc", fading: float = 0.5, of: Laws | None = None, flops=FLOPS) -> Family:
    of = of or laws()
    return Family(
        [
            Candidate(
                name,
                cost,
                Lengths(of, name, CONSTANT, LENGTH),
                name in wanted,
                Fading(fading, deviation=0.07),
            )
            for name, cost in zip("abc", flops, strict=True)
        ]
    )


def told(chosen: Family, of: Laws | None = None, pilot_flops: float = 0.0, factor: float = 1.0):
    path = chosen.cheapest()
    stages = [SimpleNamespace(lr_mult=1.0)] * len(path)
    chain = SimpleNamespace(flops=factor * chosen.flops(path), stages=stages)
    return forecast(chosen, path, chain, of or laws(), pilot_flops)


def test_tau_by_hand():
    """a comes to 1.8 + 8 / sqrt(1000) = 2.053; b is there after (9 / 0.653)^2 = 190 iterations."""
    tau = family().skipped(Stop(0, 1.0), Stop(1, 1.0))
    assert tau == pytest.approx((9 / (0.4 + 8 / 1000**0.5)) ** 2 / 1000, rel=0.01)
    assert family().shares((Stop(0, 1.0), Stop(1, 1.0))) == [
        1.0,
        pytest.approx((1 - tau) / (1 - 0.5 * tau)),
    ]


@pytest.mark.parametrize("wanted", ["abc", "c", "ac", "bc", "b"])
@pytest.mark.parametrize("fading", [0.1, 0.9])
def test_nothing_is_cheaper(wanted, fading):
    """Every subset of members with every end, in order, costs as much or more."""
    chosen = family(wanted, fading)
    last = max("abc".index(name) for name in wanted)
    may_follow = partial(chosen._may_follow, in_order=True)
    costs = []
    for size in range(last + 1):
        for others in combinations(range(last), size):
            members = (*others, last)
            if not all("abc".index(name) in members for name in wanted):
                continue
            for worths in product(WORTHS, repeat=len(members)):
                path = tuple(map(Stop, members, worths))
                ends = [s.worth >= 1 for s in path if "abc"[s.index] in wanted]
                if all(ends) and all(may_follow(*hop) for hop in pairwise(path)):
                    costs.append(chosen.flops(path))
    assert chosen.flops(chosen.cheapest()) == pytest.approx(min(costs))


def test_a_member_that_helps_nothing_is_left_out():
    """Where nothing fades the smaller ones pay; where all does none can."""
    assert [stop.index for stop in family("c", 0.0, flops=(1, 6, 300)).cheapest()] == [0, 1, 2]
    assert [stop.index for stop in family("c", 0.1).cheapest()] == [0, 2]
    assert [stop.index for stop in family("c", 0.99).cheapest()] == [2]
    assert [stop.index for stop in family("b").cheapest()][-1] == 1, "larger ones are not trained"


def test_members_keep_their_order():
    """A first member that is trained on and on would save hops, and overtake."""
    chosen = family()
    path = chosen.cheapest()
    for source, target in pairwise(path):
        alone = chosen.loss(Stop(source.index, 1.0)) - chosen.loss(Stop(target.index, 1.0))
        step = chosen.loss(source) - chosen.loss(target)
        left = chosen.loss(source) - chosen.loss(Stop(target.index, 1.0))
        assert step >= min(0.8 * alone, left) - 1e-9


def test_bounds_by_hand():
    """What is skipped for nothing, and one model of three."""
    chosen = family()
    taus = [chosen.skipped(Stop(i, 1.0), Stop(i + 1, 1.0)) for i in (0, 1)]
    left = 1 + 3 * (1 - taus[0]) + 9 * (1 - taus[1])
    assert skip_bound(chosen) == pytest.approx(13 / left)
    said = told(chosen)
    assert said.downward_bound == pytest.approx(13 / 9)
    assert said.verdict == "pays" and 1 < said.ratio < said.skip_bound
    assert said.ratio_range[0] < said.ratio < said.ratio_range[1]
    assert told(chosen, factor=2.0).ratio == pytest.approx(said.ratio / 2), "teachers are charged"


def test_padding_by_hand():
    """b is as good as c alone, 1.316, never; with a lower bottom after (9 / 0.216)^2 iterations."""
    assert told(family()).padding is None
    of = laws((1.8, 1.1, 1.0))
    padding = told(family(of=of), of).padding
    assert padding.name == "b"
    assert padding.longer == pytest.approx((9 / (10 / 1000**0.5 - 0.1)) ** 2 / 1000, rel=0.01)


def test_verdicts():
    of = laws((1.0, 1.0, 1.0), (8.2, 8.1, 8.0))
    said = told(family(of=of), of)
    assert said.verdict == "no family", "a is as good as c after little more"
    of = laws(spread=0.5)
    said = told(family(of=of), of)
    assert said.verdict == "not apart" and [one.name for one in said.too_close] == ["b", "c"]
    of = laws((1.0, 1.0, 1.0), (20.0, 14.0, 9.0), spread=0.2)
    assert 0.2 < told(family(of=of), of).catches_up < 0.8, "as they may have other bottoms"
    assert told(family(), pilot_flops=100.0).verdict == "does not pay"
    assert told(family(fading=0.99), factor=1.5).verdict == "does not pay"
    assert told(family("c", fading=0.99)).verdict == "alone", "no chain is cheaper than c"


def test_a_family_in_disorder_is_still_designed():
    """c is worse than b: there is no chain in order, and no family."""
    of = laws((1.8, 1.0, 3.0))
    said = told(family(of=of), of)
    assert said.verdict == "no family" and said.members[2].gap < 0


def test_forecasts_are_json():
    content = json.loads(json.dumps(told(family()).to_dict()))
    assert content["verdict"] == "pays" and content["members"][1]["source"] == "a"
    assert replace(told(family()), flops=1.0).charged_ratio == pytest.approx(13.0)
