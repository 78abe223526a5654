"""Rows of families whose figures are known, from the sweep to the tables and the plot."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from map import tables
from measuring.family import AS_PUBLISHED, CHOOSING, PUBLISHED, Recipe
from measuring.plot import draw_map
from measuring.row import Rows
from measuring.show import sentences, show_row, write
from measuring.tables import controls_table, elsewhere_table, saving_table

from tests.benchmarks.worlds import ITERS, FakeBench, FakeJob, World


def measured(world: World, tmp_path: Path, **changes: Any) -> tuple[dict[str, Any], FakeBench]:
    """A row as its file has it, having been shown as a person would see it."""
    bench = FakeBench(world, **changes)
    row = Rows(bench).measure(ITERS)
    show_row(row)
    write([row], tmp_path / "row.json")
    (row,) = json.loads((tmp_path / "row.json").read_text(), parse_constant=pytest.fail)
    return row, bench


def cells(row: dict[str, Any]) -> dict[str, str]:
    of_row: dict[str, str] = {}
    for table in (saving_table([row]), controls_table([row])):
        header, _, line = (line.split("|")[1:-1] for line in table.splitlines())
        of_row |= {name.strip(): text.strip() for name, text in zip(header, line, strict=True)}
    return of_row


def test_a_family_is_measured_and_charged(tmp_path: Path) -> None:
    """By hand: 1 + 2 * 13/16 + 4 * 14/16 of 1 + 2 + 4, see test_hops.py."""
    row, _ = measured(World(), tmp_path)
    assert row["fractions"] == [1.0, 13 / 16, 14 / 16]
    chain = 1 + 2 * 13 / 16 + 4 * 14 / 16
    assert row["ratio"] == pytest.approx(7 / chain)
    assert row["as_good"] and row["in_order"]
    assert row["chain_flops"] == pytest.approx([ITERS, 2 * ITERS * 13 / 16, 4 * ITERS * 14 / 16])
    assert row["only_the_largest"] == pytest.approx(4 / chain)
    assert row["downward_bound"] == pytest.approx(7 / 4)
    assert row["ratio_seconds"] == pytest.approx(3 / (1 + 2 * 13 / 16 + 2 * 14 / 16))
    assert row["skipped"] == [0.0, 0.25, 0.25], "0.2344, but the shortest of the curve is a quarter"
    assert row["skip_bound"] == pytest.approx(7 / (1 + 2 * 0.75 + 4 * 0.75))
    assert row["worths"] == pytest.approx([1.0, 0.9375, 0.9844], abs=1e-4)
    equally_good = 1 + 2 * 0.9375 + 4 * 0.9844
    assert row["equal_quality"] == pytest.approx(equally_good / chain, abs=1e-4)
    assert row["equal_quality"] < row["ratio"], "the margin is worth something"
    assert row["equal_compute"]["iters"] == round(ITERS * chain / 4)
    assert row["equal_samples"]["iters"] == round(ITERS * (1 + 13 / 16 + 14 / 16))
    assert row["equal_samples"]["gain"] > row["equal_compute"]["gain"] > 0
    assert row["length"] == 2.0 and row["unit"] == "epochs"


def test_what_judges_is_not_what_chose(tmp_path: Path) -> None:
    """The choosing seeds are lucky here, and the row does not say so."""
    lucky = World(noise=lambda job: 1.0 if job.seed in CHOOSING else 0.0)
    row, bench = measured(lucky, tmp_path)
    assert [member["alone"] for member in row["members"]] == [[-0.0] * 5, [-0.5] * 5, [-1.0] * 5]
    assert row["worths"] == pytest.approx([1.0, 0.9375, 0.9844], abs=1e-4), "nor is that luck"
    judged = [job for job in bench.grown_jobs() if job.index == 2 and job.seed not in CHOOSING]
    assert {job.seed for job in judged} == {1, 2, 3, 4, 5}
    assert row["seeds"] == 5 and {len(values) for values in row["chain"]} == {5}


def test_the_chain_is_judged_as_its_hops_chose_to_grow(tmp_path: Path) -> None:
    """Not by the family's own grower, and the row says so."""
    choices = ({"grower": {"type": "lossless"}}, {"grower": {"type": "clone"}})
    row, bench = measured(World(taxes={"clone": 0.0}), tmp_path, choices=choices)
    of_recipes = [
        job for job in bench.grown_jobs() if job.ways["grower"]["type"] == "leading_block"
    ]
    judging = [job for job in bench.grown_jobs() if job.seed <= 8 and job not in of_recipes]
    assert {job.ways["grower"]["type"] for job in judging} == {"clone"} and len(judging) == 10
    assert row["grown_by"][1:] == [choices[1]] * 2
    assert "grown: b by grower=clone; c by grower=clone" in list(sentences(row))


def test_rates_and_budgets_of_either_side_are_charged(tmp_path: Path) -> None:
    row, bench = measured(World(), tmp_path)
    sweep = [job for job in bench.trained if job.iters == ITERS and job.seed in CHOOSING]
    assert row["spent_on_sweep"] == sum(job.flops for job in sweep if not job.source)
    grown = [job for job in bench.grown_jobs() if job.seed in CHOOSING]
    assert row["search"]["flops"] == sum(job.flops for job in grown)


def test_the_tables_bring_the_headline_beside_every_control(tmp_path: Path) -> None:
    row, _ = measured(World(), tmp_path)
    ratio = f"{7 / (1 + 2 * 13 / 16 + 4 * 14 / 16):.2f}x"
    line = cells(row)
    assert line["and in order"] == line["as good as alone"] == f"**{ratio}**"
    assert line["family"] == "made, 3 members" and line["epochs"] == "2"
    assert line["stop and pad"] == "0.92x (b for 3.48 of its budget, its curve carried on)"
    assert line["equal compute"].startswith("+") and line["only the largest"] == "0.65x"
    assert "members beside alone" in line["as published"] and line["downward, at most"] == "1.75x"
    assert f"as good, and the order kept: {ratio}" in list(sentences(row))[-1]


def test_a_family_whose_smallest_catches_up_has_no_ratio(tmp_path: Path) -> None:
    """8 times as long is worth 1.5 here, and the largest is 1 better: nothing is grown."""
    row, bench = measured(World(slope=0.5), tmp_path)
    assert not bench.grown_jobs()
    assert row["gate"]["catches_up"] and not row["gate"]["open"]
    assert not {"ratio", "ratio_seconds", "skip_bound", "only_the_largest", "chain"} & row.keys()
    line = cells(row)
    assert line["as good as alone"] == "no family: the smallest catches up in 8 times its budget"
    for name in ("and in order", "in seconds", "skip bound", "as published", "equal compute"):
        assert line[name] == ""
    assert list(sentences(row))[-1].startswith("no family here")
    draw_map([row], tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "<!-- no family -->" in drawn and "<!-- stop and pad -->" in drawn
    assert "<!-- skip bound -->" not in drawn and "order kept" not in drawn


def test_a_family_that_does_not_differ_has_no_ratio(tmp_path: Path) -> None:
    """The last two are 0.01 apart, in noise of 0.1."""
    world = World(levels=(0.0, 0.8, 0.81), noise=lambda job: 0.1 * math.sin(job.seed * job.index))
    row, bench = measured(world, tmp_path)
    assert row["gate"]["apart"] == [True, False] and not bench.grown_jobs()
    assert cells(row)["as good as alone"] == "no family: sizes do not differ"


def test_where_stopping_and_padding_wins_the_table_says_so(tmp_path: Path) -> None:
    """The second of three all but reaches the third, and costs a quarter of it.

    The gate is open: the smallest stays below, and neighbours differ, by however little.
    """
    world = World(levels=(0.0, 0.9, 1.0), costs=(1.0, 2.0, 8.0))
    row, _ = measured(world, tmp_path)
    assert row["gate"]["open"] and row["pad_null"]["member"] == "b"
    assert row["pad_null"]["ratio"] > row["ratio"]
    assert cells(row)["stop and pad"].startswith(f"{row['pad_null']['ratio']:.2f}x (b for 1.28 of")


def test_a_chain_that_stops_and_pads_is_as_good_and_no_family(tmp_path: Path) -> None:
    """The second trains on until it is as good as the third, which is grown exactly."""

    def pads(job: FakeJob) -> float:
        if job.source is None or job.index < 2:
            return 0.0
        return world.quality(job.source) - world.at(2, world.stands(job))

    world = World(levels=(0.0, 0.9, 1.0), tax=0.0, best_mult=0, noise=pads)
    recipe = Recipe((1.0, 1.25, 1 / ITERS), (1.0, 1.0, 1.0))
    row, _ = measured(world, tmp_path, chains={ITERS: recipe})
    assert row["search"] is None, "the file has the chain"
    assert row["chain"][1] == row["chain"][2] and row["ratio"] > 1.9
    assert row["as_good"] and not row["in_order"]
    line = cells(row)
    assert line["as good as alone"] == f"**{row['ratio']:.2f}x**"
    assert line["and in order"] == f"missed, at {row['ratio']:.2f}x"
    draw_map([row], tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "<!-- missed -->" in drawn and "order kept" not in drawn
    searched = Rows(FakeBench(world, chains={ITERS: recipe})).measure(ITERS, searching=True)
    assert searched["search"] and searched["fractions"] != recipe.fractions


@pytest.mark.parametrize(("width", "seeds"), [(0.01, 5), (0.2, 8)])
def test_more_seeds_judge_where_the_interval_is_wide(
    tmp_path: Path, width: float, seeds: int
) -> None:
    """Noise of grown members only; the margin is 0.05."""
    world = World(noise=lambda job: width * math.sin(2 * job.seed) if job.source else 0.0)
    row, bench = measured(world, tmp_path)
    judged = {job.seed for job in bench.grown_jobs()} - set(CHOOSING)
    assert row["seeds"] == seeds and judged == set(range(1, seeds + 1))
    assert {len(member["alone"]) for member in row["members"]} == {seeds}
    assert {len(values) for values in row["chain"]} == {seeds}


def test_more_seeds_may_close_the_gate(tmp_path: Path) -> None:
    """The last three of eight say otherwise than the first five."""

    def noise(job: FakeJob) -> float:
        if job.source:
            return 0.2 * math.sin(2 * job.seed)
        return -1.5 if job.index == 2 and 5 < job.seed < 9 else 0.0

    row, bench = measured(World(noise=noise), tmp_path)
    assert bench.grown_jobs() and not row["gate"]["open"] and "ratio" not in row


def test_few_seeds_decide_nothing(tmp_path: Path) -> None:
    row, _ = measured(World(), tmp_path, seeds={ITERS: 2})
    assert row["seeds"] == 2
    assert cells(row)["and in order"].startswith("undecided, at")
    assert "undecided: 2 of 5 seeds" in list(sentences(row))[-1]


def test_who_missed_is_named(tmp_path: Path) -> None:
    """Grown members of the last size fall short on the judging seeds only."""
    world = World(noise=lambda job: -0.2 if job.source and job.index == 2 and job.seed < 9 else 0.0)
    row, _ = measured(world, tmp_path)
    assert [verdict["as_good"] for verdict in row["verdicts"]] == [True, True, False]
    assert not row["as_good"] and not row["in_order"]
    assert "missed by c (at these budgets" in list(sentences(row))[-2]
    assert cells(row)["as good as alone"].startswith("missed, at")


def test_a_published_chain_that_diverged_has_no_ratio(tmp_path: Path) -> None:
    world = World(diverges=lambda job: (job.ways or {}).get("transfer") is not None)
    row, _ = measured(world, tmp_path)
    assert cells(row)["as published"] == "b diverged" and row["in_order"]
    assert measured(World(), tmp_path, recipes={})[0]["published"] == []


def test_members_are_judged_on_other_splits_too_and_beside_other_recipes(tmp_path: Path) -> None:
    """On ``far`` losses are twice as high, and so are the gains of every chain."""
    bare = {"grower": {"type": "lossless"}, "fractions": (1.0, 0.5)}
    recipes = {AS_PUBLISHED: PUBLISHED, "half": bare}
    row, _ = measured(World(), tmp_path, recipes=recipes)
    assert list(row["recipes"]) == ["half"]
    assert [reached["iters"] for reached in row["recipes"]["half"]] == [ITERS, 512, 512]
    assert any(sentence.startswith("half: 1.") for sentence in sentences(row))
    header, _, own, far = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in elsewhere_table([row]).splitlines()
    )
    assert header[2:] == ["figure", "alone", "chain beside alone", "as published", "half"]
    assert own[2] == "val/loss" and far[2:4] == ["far/loss", "0.000, -1.000, -2.000"]
    for here, there in zip(own[4:], far[4:], strict=True):
        gains = [[float(gain) for gain in cell.split(",")] for cell in (here, there)]
        assert gains[1] == pytest.approx([2 * gain for gain in gains[0]], abs=2e-4)
    assert elsewhere_table([{k: v for k, v in row.items() if k != "elsewhere"}]) == ""


def test_rows_share_their_runs_and_begin_where_the_shorter_ended(tmp_path: Path) -> None:
    """Rates fall with the fourth root of the length."""
    lengths = (ITERS, 2 * ITERS)
    bench = FakeBench(World(), lengths=lengths, seeds=dict.fromkeys(lengths, 5))
    rows = Rows(bench)
    first = rows.measure(lengths[0])
    before = list(bench.trained)
    assert rows.measure(lengths[0]) == first and bench.trained == before, "nothing twice"
    second = rows.measure(lengths[1])
    rates = sorted(map(float, second["members"][0]["sweep"]))
    assert pytest.approx(2**-0.25, rel=1e-3) in rates
    assert set(rows.curve(0, 2 * ITERS)) == {ITERS // 4, ITERS // 2, ITERS, 2 * ITERS}
    content = tables([first, second])
    assert content.keys() == {"saving", "controls", "elsewhere", "overwritten"}
    assert content["saving"].count("made, 3 members") == 2
    otherwise = {**first, "name": "otherwise-smoke", "unit": "tokens"}
    of_epochs, of_tokens = saving_table([first, otherwise, second]).split("\n\n")
    assert of_epochs == content["saving"] and "otherwise, 3 members" in of_tokens
    assert of_tokens.startswith("| family | tokens | seeds |")
    draw_map([first, second], tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "<!-- skip bound -->" in drawn and "<!-- as good, order kept -->" in drawn
    assert "<!-- no family -->" not in drawn
    draw_map([first, second], tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == drawn
    otherwise = {**first, "name": "otherwise-smoke"}
    draw_map([first, second, otherwise], tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "<!-- otherwise, order kept -->" in drawn, "beside those of the same members"
    assert "otherwise, 3 members" not in drawn and drawn.count("<!-- made, 3 members -->") == 1


def test_a_longer_row_measures_what_a_shorter_one_carried_on(tmp_path: Path) -> None:
    lengths = (ITERS, 4 * ITERS)
    bench = FakeBench(World(), lengths=lengths, seeds=dict.fromkeys(lengths, 5))
    rows = Rows(bench)
    carried = rows.measure(lengths[0])["pad_null"]
    rows.measure(lengths[1])
    before = list(bench.trained)
    again = rows.row(lengths[0])["pad_null"]
    assert bench.trained == before, "it is read, not trained"
    assert not carried["measured"] and again["measured"]
    assert again["member"] == "b" and 1 < again["longer"] <= 4
