"""What a designed chain is said to be, and the config that says it."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from compt.planning.auto import AutoPlan
from compt.planning.fading import FROM_END, FROM_PLATEAU
from compt.planning.forecast import Forecast, MemberForecast, Padding
from compt.report.design_table import design_table, design_text, verdict_text
from compt.report.designed_config import designed_text
from compt.report.pilots import Pilots

PILOTS = Pilots("val/loss", False)
MEMBERS = (
    MemberForecast("a", True, 2.0, (1.9, 2.1), None, None, share=1.0, share_range=(1.0, 1.0)),
    MemberForecast("b", False, 1.5, (1.4, 1.6), 0.5, 0.1),
    MemberForecast("c", True, 1.2, (1.1, 1.3), 0.3, 0.05, "a", 0.3, 0.2, (0.1, 0.4), 0.5),
)
FORECAST = Forecast(
    members=MEMBERS,
    flops=50e9,
    alone_flops=100e9,
    pilot_flops=10e9,
    ratio=2.0,
    ratio_range=(1.5, 2.5),
    skip_bound=2.6,
    downward_bound=1.3,
    padding=None,
    smallest_longer=1.5,
    catches_up=0.1,
    fadings=(FROM_END,),
    law_errors={"a": 0.01, "c": 0.01},
    alpha=0.3,
    foretold_error=0.01,
)


def auto(**changes) -> AutoPlan:
    stages = [
        SimpleNamespace(name=n, iters=i, flops=f) for n, i, f in (("a", 100, 1), ("c", 20, 4))
    ]
    content = {"chain": [{"name": "a", "iters": 100}, {"name": "c", "iters": 20}]}
    plan = SimpleNamespace(stages=stages, flops=5)
    return AutoPlan(replace(FORECAST, **changes), content, plan)


def test_the_table():
    console = Console(width=80, record=True)
    console.print(design_table(auto(), PILOTS))
    rows = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "a 2 ± 0.1 100 100% 20% x1" in rows
    assert "(b) 1.5 ± 0.1 0.5 ± 0.1 left out" in rows
    assert "c 1.2 ± 0.1 0.3 ± 0.05 30% 20 20% ± 15 80% x0.5" in rows


def test_the_numbers():
    text = design_text(auto(padding=Padding("a", 3.0, 1.8)), PILOTS)
    for words in (
        "predicted saving: 2.00x (80% interval 1.50x to 2.50x)",
        "the wanted members alone take 100 GFLOP, the chain 50 GFLOP",
        "with the pilots charged (10 GFLOP): 1.67x",
        "skip bound, if hops cost nothing: 2.60x",
        "stopping at 'a' after 3 times its length",
        f"overwrite {FROM_END.share} ± {FROM_END.deviation} of what its source is worth",
        "misses the longest by 1.0%",
        "=> A chain pays here: 1.67x, pilots charged.",
    ):
        assert words in text
    assert "warning" not in text
    of_root = f"overwrite {FROM_PLATEAU} of the root of what its source is worth"
    assert of_root in design_text(auto(fadings=(FROM_PLATEAU,)), PILOTS)
    assert "longer ones say more" in design_text(auto(foretold_error=0.08), PILOTS)
    assert "too few shorter pilots" in design_text(auto(foretold_error=None), PILOTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(ratio_range=(0.9, 2.5)), "may pay here: 1.67x, pilots charged, but its interval"),
        (dict(pilot_flops=60e9), "does not pay here: 0.91x, pilots charged"),
        (dict(members=(*MEMBERS[:2], replace(MEMBERS[2], gap_error=0.2))), "told whether.*'c' not"),
        (dict(members=(MEMBERS[1], MEMBERS[2])), "none is cheaper than 'c' alone"),
        (dict(catches_up=0.5), "told whether.* with 50% probability 'a' trained 8 times as long"),
        (
            dict(catches_up=0.9),
            "No family here: 'a' trained 8 times as long is as good",
        ),
        (
            dict(catches_up=1.0, padding=Padding("a", 3.0, 2.8)),
            r"Train 'a' for 3 times its length instead; stopping there and padding .* save 2.80x",
        ),
    ],
)
def test_the_verdict_in_words(changes, words):
    assert re.search(words, verdict_text(auto(**changes)))


def test_the_config_says_why():
    text = designed_text(auto(), PILOTS, "family.py").replace("\n    # ", " ").replace("\n# ", " ")
    for words in (
        "A chain of the family in family.py",
        "A chain pays here: 1.67x",
        "Budgets are for members as good as alone. Left out, as the chain is cheaper without: b.",
        "From scratch, for 100% of its length alone, after which it has val/loss 2.",
        "20% of its length alone: 'a' saves it 30%; alone it comes to val/loss 1.2.",
        "So short a stage learns better at 0.5 of the rate.",
    ):
        assert words in text
