"""Tables, growth and benchmarks of a page, with the numbers worked out beside them."""

from __future__ import annotations

from pathlib import Path

from compt.report.build import report
from compt.report.evaluations import EVALUATIONS, Evaluation
from compt.report.growth import GrowthReport, LearnedGrowth
from compt.report.html.coverage import MOST_DROPPED, coverages
from compt.report.html.stages import read_stages
from compt.report.html.suites import read_suites
from compt.report.html.tables import costs, energy_note, gains, held_out, side_by_side
from compt.report.metrics import MetricValue
from tests.report.html.pages import grown, pair
from tests.report.work_folders import CHAIN, change, make_run


def test_a_member_is_held_against_its_source_and_alone(tmp_path: Path) -> None:
    result = report(pair(tmp_path))
    table = gains(read_stages(result.runs)[:2], result.comparisons[0])
    assert table is not None
    tiny, small = (dict(zip(table.headers, row, strict=True)) for row in table.rows)
    assert (tiny["its source had"], tiny["over its source"]) == ("-", "")
    assert (small["result"], small["its source had"]) == ("45.0 % (chance 10)", "30.0 %")
    assert (small["over its source"], small["over alone"]) == ("+15.0 points", "+5.0 points")
    # 300 FLOP alone against 40, and against 140 with the 100 of the source.
    assert (small["budget alone"], small["equal after"]) == ("300 FLOP", "40 FLOP")
    assert (small["saved by its stage"], small["saved in all"]) == ("7.50x", "2.14x")
    assert gains(read_stages(result.runs)[:2], None).headers[-1] == "over its source"


def test_costs_leave_out_what_no_run_knows(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    manifest = folders[0] / "02_small" / "manifest.json"
    flops = {"total": 100, "student_per_sample": 3, "teacher_per_sample": 1, "growth": 10}
    change(manifest, flops=flops, seconds=14, growth_seconds=2, batch_size=8, iters=3)
    before = costs(report(folders).runs)
    assert not {"energy", "memory", "evaluation"} & set(before.headers)
    change(manifest, energy_joules=7200, energy_meters=["rapl"], peak_memory_bytes=3e9)
    runs = report(folders).runs
    table = costs(runs)
    row = dict(zip(table.headers, table.rows[1], strict=True))
    assert (row["run"], row["member"], row["energy"], row["memory"]) == (
        "chain",
        "small",
        "2 Wh",
        "3 GB",
    )
    # 24 samples at 3 FLOP leave 18 of 100 for the teacher; they took 12 of 14 seconds.
    assert (row["teacher's share"], row["growth's share"]) == ("18.0 %", "10.0 %")
    assert (row["samples/s"], row["time"], row["of it growth"]) == ("2", "14 s", "2 s")
    assert energy_note(runs) == "Energy as counted by rapl; of 3 members it is not known."


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = report(pair(tmp_path)).runs
    table = side_by_side(runs)
    assert table.headers[:3] == ("member", "result, chain", "result, alone")
    assert table.rows[1] == ("small", "45.0 %", "40.0 %", "160 FLOP", "300 FLOP", "61 s", "61 s")
    assert side_by_side(runs[:1]) is None


def test_a_metric_that_a_member_lacks_is_a_dash(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "c", "chain", CHAIN)
    change(folder / "02_small" / "manifest.json", metrics={}, curve=[], main_metric=None)
    table = held_out(report([folder]).runs[0])
    assert table.headers == ("metric", "chance", "tiny", "small")[:3]
    assert table.rows == (("val/top1", "10.0 %", "30.0 %"), ("val/loss", "-", "0.7"))


def test_growth_is_counted_and_listed(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "c", "chain", CHAIN)
    manifest = folder / "02_small" / "manifest.json"
    params = {"a": "copied", "b": "initialised", "c": "initialised", "d": "shared"}
    learned = {"calls": 40, "first_loss": 2.0, "last_loss": 1.5}
    dropped = [f"t{i}" for i in range(MOST_DROPPED + 3)]
    grown(manifest, params, objective=learned, dropped=dropped, reset=["e"])
    (coverage,) = coverages(read_stages(report([folder]).runs))
    assert coverage.counts == (("copied", 1, 0.25), ("new", 2, 0.5), ("shared", 1, 0.25))
    assert coverage.rows == (("a", "copied"), ("b", "new"), ("c", "new"), ("d", "shared"))
    assert (coverage.source, coverage.num_left_out) == ("tiny", 0)
    steps, gone, reset = coverage.notes
    assert steps == "Learned in 40 steps: loss 2 -> 1.5."
    assert gone.endswith(f"t{MOST_DROPPED - 1} and 3 more.")
    assert reset == "Set anew, as they must not be inherited: e."


def test_a_stage_that_is_being_trained_shows_its_growth(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "c", "chain", CHAIN, done=1)
    (folder / "02_small").mkdir()
    assert coverages(read_stages(report([folder]).runs)) == ()
    from compt.report.growth import GrowthRecord

    learned = LearnedGrowth(4, 2.0, 1.0)
    growth = GrowthReport("compose", False, "it learns", params={"a": "new"}, objective=learned)
    GrowthRecord(growth).write(folder / "02_small" / "growth.json")
    (coverage,) = coverages(read_stages(report([folder]).runs))
    assert (coverage.name, coverage.grower) == ("small", "compose")


def test_suites_have_a_table_each(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "c", "chain", CHAIN)
    share = MetricValue(0.5, 0.1, unit="share")
    for stage, suites in {"01_tiny": ["knn"], "02_small": ["knn", "zeroshot"]}.items():
        for suite in suites:
            made = Evaluation(suite=suite, options={}, metrics={"cifar/top1": share}, weights={})
            made.write(folder / stage / EVALUATIONS)
    stages = read_stages(report([folder]).runs)
    knn, zeroshot = read_suites([stages]).tables
    assert (knn.caption, zeroshot.caption) == ("knn, chain", "zeroshot, chain")
    assert knn.rows == (("cifar/top1", "10.0 %", "50.0 %", "50.0 %"),)
    assert zeroshot.headers == ("metric", "chance", "small")
    change(folder / "02_small" / "manifest.json", files={"export/model.bin": "0" * 64})
    (folder / "01_tiny" / EVALUATIONS / "broken.json").write_text("{")
    broken, outdated, *_ = read_suites([read_stages(report([folder]).runs)]).notes
    assert "chain, 'tiny': Cannot read 'broken.json'" in broken
    assert outdated == ("chain, 'small': knn was measured of other weights than the stage now has.")
