"""The study of a hop, on a bench whose tax is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from map import tables
from measuring.show import text_of, write
from measuring.tables import study_table
from measuring.tax import SEEDS, Study

from compt.errors import ConfigError
from tests.benchmarks.worlds import ITERS, FakeBench, World

LOSSLESS = {"grower": {"type": "lossless"}}
BLOCK = {"grower": {"type": "leading_block"}, "fractions": (0.25,)}
WORLD = World(best_mult=0)


def measured(world: World = WORLD, *ways: dict[str, Any]) -> tuple[dict[str, Any], FakeBench]:
    bench = FakeBench(world, study=ways or (LOSSLESS, BLOCK))
    return Study(bench, 1).measure(ITERS), bench


def test_the_tax_of_a_hop_is_what_it_costs_beside_its_sources_worth() -> None:
    """A source worth a quarter, and a tax of an eighth, as the world has it."""
    result, bench = measured()
    assert result["hop"] == ["a", "b"] and result["seeds"] == len(SEEDS)
    assert result["worth_of_source"] == pytest.approx(0.25)
    lossless, block = result["ways"]
    assert [point["fraction"] for point in lossless["points"]] == [0.125, 0.25, 0.5]
    assert [point["fraction"] for point in block["points"]] == [0.25]
    assert block["way"] == {"grower": {"type": "leading_block"}}
    for point in lossless["points"][1:]:
        assert point["worth"] == pytest.approx(0.25 + point["fraction"] - 0.125)
        assert point["tax"] == pytest.approx(0.125) and point["tax_error"] < 1e-9
        assert point["flops"] == pytest.approx(point["fraction"])
    assert lossless["points"][2]["gain"] == pytest.approx(WORLD.at(0, 0.625 * ITERS))
    assert {job.index for job in bench.grown_jobs()} == {1}
    assert {job.seed for job in bench.grown_jobs()} == set(SEEDS)


def test_a_source_is_trained_as_its_way_needs_it() -> None:
    """From the plateau, and with what the optimizer remembers; else it is the run alone."""
    ways = [
        LOSSLESS,
        {**LOSSLESS, "trunk": True},
        {**LOSSLESS, "trunk": True, "grown": {"optimizer_state": True, "lr_mult": 0.5}},
    ]
    _, bench = measured(WORLD, *ways)
    sources = [
        job.source.ways for job in bench.grown_jobs() if job.iters == 256 and job.seed == 101
    ]
    assert sources == [{}, {"trunk": True}, {"trunk": True, "checkpoint": {"optimizer": True}}]
    assert [job.ways for job in bench.grown_jobs() if job.iters == 256 and job.seed == 101] == [
        {**LOSSLESS, **way} for way in ways
    ]


def test_what_holds_for_all_members_holds_for_those_alone() -> None:
    """Averaging is worth 0.1 to any run here: the hop itself costs no less by it."""
    ema = {"average": {"type": "ema"}}
    world = World(best_mult=0, noise=lambda job: 0.1 if "average" in (job.ways or {}) else 0.0)
    result, _ = measured(world, LOSSLESS, {**LOSSLESS, **ema})
    plain, averaged = (way["points"][2] for way in result["ways"])
    assert averaged["gain"] == pytest.approx(plain["gain"])
    assert averaged["tax"] == pytest.approx(plain["tax"])
    assert averaged["qualities"] == pytest.approx([q + 0.1 for q in plain["qualities"]])


def test_a_way_that_diverges_has_no_point() -> None:
    world = World(best_mult=0, diverges=lambda job: job.source is not None and job.iters < 300)
    result, _ = measured(world)
    assert [point["fraction"] for point in result["ways"][0]["points"]] == [0.5]
    assert result["ways"][1]["points"] == []
    table = study_table(result)
    assert table.splitlines()[-1] == "| grower=leading_block |  | - |"


def test_the_table_has_taxes_and_gains(tmp_path: Path) -> None:
    """As a file of results has them, beside rows or without."""
    result, _ = measured()
    write([result], tmp_path / "study.json")
    (written,) = json.loads((tmp_path / "study.json").read_text())
    content = tables([written])
    assert content == {"restart": study_table(result)}
    caption, _, header, _, lossless, block = content["restart"].splitlines()
    assert caption.startswith("`a -> b`, 1024 iterations alone (2 epochs), val/loss, 3 seeds.")
    assert "worth 0.250 of the budget" in caption
    assert header == (
        "| way | 0.125 of the budget | 0.25 of the budget | 0.5 of the budget | FLOPs |"
    )
    assert "0.125 ± 0.000 (-0.1695)" in lossless and lossless.endswith("| 1.00x |")
    assert block.count("|  |") == 2


def test_a_study_that_cannot_be_made_is_named() -> None:
    with pytest.raises(ConfigError, match="has no study"):
        Study(FakeBench(World()), 1)
    for hop in (0, 3):
        with pytest.raises(ConfigError, match="One of 1 to 2"):
            Study(FakeBench(World(), study=(LOSSLESS,)), hop)


def test_a_way_is_written_in_one_line() -> None:
    way = {"grower": {"type": "lossless", "fill": "copy"}, "trunk": True, "grown": {"lr_mult": 0.5}}
    assert text_of(way) == "grower=lossless(fill=copy), trunk=True, grown(lr_mult=0.5)"
    assert text_of({}) == "none"
