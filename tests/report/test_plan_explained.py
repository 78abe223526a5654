"""A plan in words: the numbers are those of the plan."""

from __future__ import annotations

import compt
from compt.report.plan_explained import explained


def test_every_number_is_worked_out(toy):
    text = explained(compt.plan(toy), 200)
    for line in (
        "b: 2,554 / 474 = 5.39",
        "b: 8 x 32 = 256",
        "c: 192 x 43.7 k + 192 x 4.67 k = 9.28 MFLOP",
        "b: 800 FLOP by feature_mse, in 8 of 8 iterations",
        "chain: 582 k + 3.73 M + 9.28 M = 13.6 MFLOP, every stage charged",
        "ratio: 15.3 M / 13.6 M = 1.12",
        "'c' alone, 256 x 43.7 k = 11.2 MFLOP",
        "2 to 4 times in parameters",
    ):
        assert line in text, line
    assert max(map(len, explained(compt.plan(toy), 80).splitlines())) <= 80


def test_members_alone_have_neither_growth_nor_comparison(toy):
    toy["individual"] = dict(iters=4)
    text = explained(compt.plan(toy, individual=True))
    assert "every member alone" not in text and "sub-chains" not in text
