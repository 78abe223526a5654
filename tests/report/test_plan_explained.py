"""A plan in words: the numbers are those of the plan."""

from __future__ import annotations

import pytest

import compt
from compt.planning.devices import device
from compt.planning.memory import StageMemory
from compt.report.plan_explained import device_text, explained, hours_text


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


@pytest.mark.parametrize(
    ("hours", "text"),
    [(12_345, "12,345 h"), (2.5, "2.5 h"), (0.5, "30 min"), (1 / 3600, "1 s")],
)
def test_hours_are_written_as_people_say_them(hours, text):
    assert hours_text(hours) == text


@pytest.mark.parametrize(
    ("weights", "activations", "words"),
    [
        (10**9, 13 * 10**9, "use a smaller train_dataloader.batch_size, activations are 1.3 GB"),
        (14 * 10**9, 10**9, "all but activations does not fit"),
        (10**9, 10**9, None),
    ],
)
def test_what_does_not_fit_is_said(weights, activations, words):
    parts = StageMemory(weights, 0, 0, 0, activations, batch_size=10, is_half=False)
    text = device_text([parts], [1.0], device("T4"), 0.35)
    assert ("more than the 16 GB of a T4" in text) is (words is not None)
    assert words is None or words in text
