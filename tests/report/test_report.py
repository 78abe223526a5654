"""Reports from hand-written manifests, with the numbers worked out beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from compt.errors import ConfigError, WorkDirError
from compt.report.build import report, report_command, write
from compt.report.comparison import Report
from compt.report.drawings import DRAWN, PAGE, Drawings
from compt.report.metrics import MetricValue
from compt.report.terminal import sentences, tables
from tests.report.work_folders import ALONE, CHAIN, change, make_run, metric


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "c", "chain", CHAIN), make_run(tmp_path / "i", "individual", ALONE)]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are not drawn, which takes a second."""
    monkeypatch.setattr("compt.report.build.draw", lambda report: Drawings({}, ()))


def test_a_chain_charges_ancestors_and_an_individual_run_does_not(folders: list[Path]) -> None:
    chain, alone = report(folders).runs
    assert [m.cumulative_flops for m in chain.members] == [100, 160]
    assert [m.ancestor_flops for m in chain.members] == [0, 100]
    assert [m.cumulative_flops for m in alone.members] == [100, 300]
    assert (chain.flops, alone.flops) == (160, 400)
    assert chain.members[1].grower == "lossless"
    assert [m.exact for m in chain.members] == [None, True]
    assert chain.members[1].record.metrics["val/top1"] == MetricValue(0.45, 0.1, True)


def test_what_growing_dropped_is_counted(folders: list[Path]) -> None:
    growth = {
        "grower": "lossless",
        "function_preserving": False,
        "reason": "the outputs differ",
        "error": 0.5,
        "counts": {"copied": 3, "expanded": 4},
        "dropped": ["token", "mask"],
    }
    change(folders[0] / "02_small" / "manifest.json", growth=growth)
    result = report(folders)
    member = result.to_dict()["runs"][0]["members"][1]
    assert member["growth"].items() >= growth.items()
    assert (
        "chain: growth of 'small' does not keep the function: the outputs differ (measured error "
        "5.0e-01); not used of the source: 2 tensors ('token', 'mask')."
    ) in list(sentences(result))


def test_the_first_measured_point_at_or_beyond_counts(folders: list[Path]) -> None:
    (comparison,) = report(folders).comparisons
    tiny, small = comparison.members
    assert (tiny.status, tiny.verdict, tiny.difference, tiny.acceleration) == (
        "reached",
        "equal",
        0.0,
        1.0,
    )
    # 0.40 lies between 0.35 at 20 and 0.50 at 40: 40 counts, whatever comes after it.
    assert (small.status, small.verdict) == ("reached", "better")
    assert (small.reached_flops, small.ancestor_flops) == (40, 100)
    assert small.difference == pytest.approx(0.05)
    assert small.acceleration == 300 / 40
    assert small.acceleration_with_ancestors == 300 / 140
    assert (comparison.reached_flops, comparison.acceleration) == (140, 400 / 140)
    assert comparison.acceleration_full == 400 / 160


def test_a_missed_member_leaves_the_family_without_an_acceleration(tmp_path: Path) -> None:
    weak = {**CHAIN, "small": [(20, 0.35), (60, 0.39)]}
    chain = make_run(tmp_path / "c", "chain", weak)
    result = report([chain, make_run(tmp_path / "i", "individual", ALONE)])
    (comparison,) = result.comparisons
    small = comparison.members[1]
    assert (small.status, small.verdict) == ("missed", "worse")
    assert (small.acceleration, small.reached_flops) == (None, None)
    assert comparison.missed == ("small",)
    assert comparison.acceleration is None
    assert comparison.acceleration_full is None


def test_lower_is_better(tmp_path: Path) -> None:
    curves = {"tiny": [(10, 4.0), (20, 3.0)]}
    chain = make_run(tmp_path / "c", "chain", curves, higher=False, name="val/ppl")
    alone = make_run(
        tmp_path / "i", "individual", {"tiny": [(50, 3.5)]}, higher=False, name="val/ppl"
    )
    (comparison,) = report([chain, alone]).comparisons
    (tiny,) = comparison.members
    assert (tiny.status, tiny.verdict, tiny.difference) == ("reached", "better", -0.5)
    assert (tiny.reached_flops, tiny.acceleration) == (20, 2.5)


@pytest.mark.parametrize(("field", "value"), [("params", 999), ("main_metric", "val/loss")])
def test_unlike_members_are_not_compared(folders: list[Path], field: str, value: Any) -> None:
    change(folders[0] / "01_tiny" / "manifest.json", **{field: value})
    (comparison,) = report(folders).comparisons
    assert [m.status for m in comparison.members] == ["incomparable", "reached"]
    assert comparison.acceleration is None


def test_a_metric_that_is_not_finite_is_kept_apart(folders: list[Path]) -> None:
    metrics = {"val/top1": metric(float("nan"), True, 0.1)}
    curve = [{"iter": 1, "samples": 8, "flops": 60, "seconds": 1, "metrics": metrics}]
    change(folders[0] / "02_small" / "manifest.json", metrics=metrics, curve=curve)
    result = report(folders)
    assert result.comparisons[0].members[1].status == "incomparable"
    assert "NaN" not in json.dumps(result.to_dict())
    write(result, folders[0])


def test_the_curve_may_hold_plain_numbers_and_may_be_missing(folders: list[Path]) -> None:
    point = {"iter": 1, "samples": 8, "flops": 30, "seconds": 1, "metrics": {"val/top1": 0.41}}
    change(folders[0] / "02_small" / "manifest.json", curve=[point])
    change(folders[1] / "02_small" / "manifest.json", curve=[])
    chain, alone = (run.members[1].record for run in report(folders).runs)
    assert chain.curve[0].value("val/top1") == 0.41
    assert [(p.flops, p.value("val/top1")) for p in alone.curve] == [(300, 0.4)]


def test_unfinished_stages_are_shown(
    tmp_path: Path, folders: list[Path], capsys: pytest.CaptureFixture, undrawn: None
) -> None:
    curves = {**CHAIN, "base": [(1, 0.5)]}
    folder = make_run(tmp_path / "u", "chain", curves, done=1)
    (folder / "02_small").mkdir()
    result = report([folder, folders[1]])
    assert result.runs[0].unfinished == {"small": "started", "base": "not started"}
    (comparison,) = result.comparisons
    assert [m.status for m in comparison.members] == ["reached", "unfinished", "unfinished"]
    assert comparison.acceleration is None
    assert report_command([str(folder)], json=False, out=None) == 0
    assert "not started" in capsys.readouterr().out


def test_nothing_finished_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "u", "chain", CHAIN, done=0)
    assert report_command([str(folder)], json=False, out=None) == 0
    assert [p.name for p in sorted(folder.iterdir())] == [
        "chain.json",
        PAGE,
        "report.json",
    ]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format": 2}', '{"format": 1, "name": "tiny"}', '{"format": 1, "name": "x"}'],
)
def test_a_damaged_manifest_is_named(folders: list[Path], text: str) -> None:
    path = folders[0] / "01_tiny" / "manifest.json"
    path.write_text(text)
    with pytest.raises(WorkDirError) as caught:
        report(folders)
    assert caught.value.where == str(path)
    assert caught.value.do


def test_a_lost_manifest_in_the_middle_is_named(folders: list[Path]) -> None:
    (folders[0] / "01_tiny" / "manifest.json").unlink()
    with pytest.raises(WorkDirError, match=r"'small' is done, but .* no manifest: 'tiny'"):
        report(folders)


def test_foreign_folders(tmp_path: Path, folders: list[Path]) -> None:
    with pytest.raises(WorkDirError, match="not the work folder of a compt run"):
        report([tmp_path])
    with pytest.raises(WorkDirError, match="does not exist"):
        report([tmp_path / "nowhere"])
    with pytest.raises(WorkDirError, match=r"name its work folder: .*c"):
        report([folders[0] / "01_tiny"])
    (folders[0] / "chain.json").write_text('{"format": 1, "mode": "chain"}')
    with pytest.raises(WorkDirError, match=r"chain\.json.* is damaged"):
        report(folders)
    with pytest.raises(ConfigError, match="no work folder"):
        report([])


def test_several_runs(tmp_path: Path, folders: list[Path]) -> None:
    second = make_run(tmp_path / "c2", "chain", CHAIN)
    result = report([folders[0], second, folders[1], folders[1]])
    assert [run.label for run in result.runs] == ["chain 1", "chain 2", "alone"]
    assert [c.chain for c in result.comparisons] == ["chain 1", "chain 2"]
    alone = make_run(tmp_path / "i2", "individual", ALONE)
    result = report([*folders, alone])
    assert result.comparisons == ()
    assert "exactly one" in result.notes[0]


def test_a_given_start_is_noted(folders: list[Path]) -> None:
    state = json.loads((folders[0] / "chain.json").read_text())
    state["config"]["chain"][0]["init"] = "weights.safetensors"
    (folders[0] / "chain.json").write_text(json.dumps(state))
    assert "starts from weights.safetensors" in report(folders).notes[0]


def test_files_are_valid_and_reproducible(tmp_path: Path, folders: list[Path]) -> None:
    result = report(folders)
    paths = write(result, tmp_path / "one")
    assert {p.name for p in paths} == {"report.json", *DRAWN}
    assert sorted(paths) == sorted((tmp_path / "one").iterdir())
    assert json.loads((tmp_path / "one" / "report.json").read_text()) == result.to_dict()
    for path in write(result, tmp_path / "two"):
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    for path in (p for p in paths if p.suffix == ".png"):
        with Image.open(path) as image:
            assert image.width == 1800
            assert all(low < high for low, high in image.convert("RGB").getextrema())
    for path in (p for p in paths if p.suffix == ".svg"):
        assert b"<svg" in path.read_bytes()


def test_only_a_comparison_has_a_plot_of_acceleration(tmp_path: Path, folders: list[Path]) -> None:
    earlier = Drawings(dict.fromkeys(DRAWN, b"earlier"), ())
    write(report(folders), tmp_path / "out", earlier)
    assert list((tmp_path / "out").glob("acceleration.*"))
    write(report(folders[:1]), tmp_path / "out")
    assert not list((tmp_path / "out").glob("acceleration.*"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "acceleration.png").write_text("not ours")
    write(report(folders[:1]), other, Drawings({}, ()))
    assert (other / "acceleration.png").exists()


def test_an_unwritable_folder_is_named(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkDirError, match="cannot be written"):
        write(report(folders), tmp_path / "file", Drawings({}, ()))


def test_the_json_has_the_documented_keys(
    folders: list[Path], capsys: pytest.CaptureFixture, undrawn: None
) -> None:
    assert report_command([str(folder) for folder in folders], json=True, out=None) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == report(folders).to_dict()
    assert set(content) == {"format", "runs", "comparisons", "notes"}
    member, compared = content["runs"][0]["members"][0], content["comparisons"][0]["members"][0]
    assert {"name", "params", "samples", "flops", "cumulative_flops", "seconds", "metrics"} <= set(
        member
    )
    assert {"status", "verdict", "difference", "acceleration"} <= set(compared)


def _lines(result: Report, capsys: pytest.CaptureFixture) -> list[str]:
    from compt.report.terminal import show

    show(result, [], as_json=False)
    return capsys.readouterr().out.splitlines()


def test_tables_keep_to_their_width(folders: list[Path], capsys: pytest.CaptureFixture) -> None:
    names = [f"imagenet/metric_{i}" for i in range(7)]
    metrics = {name: metric(0.312, True, 0.011) for name in names}
    for stage in ("01_tiny", "02_small"):
        change(folders[0] / stage / "manifest.json", metrics=metrics, main_metric=names[0])
    result = report(folders[:1])
    lines = _lines(result, capsys)
    assert max(len(line) for line in lines if "tmp" not in line) <= 100
    assert "…" not in "".join(lines)
    assert all(any(name in line for line in lines) for name in names)
    assert any("31.2 % (chance 1.1)" in line for line in lines)
    costs, metrics = tables(result)
    assert costs.columns[0].header == "member"
    assert [column.header for column in metrics.columns] == [
        "held out, chain",
        "chance",
        "tiny",
        "small",
    ]
    assert next(iter(metrics.columns[1].cells)) == "1.1 %"


def test_the_table_says_what_was_reached(
    folders: list[Path], capsys: pytest.CaptureFixture
) -> None:
    text = "\n".join(_lines(report(folders), capsys))
    assert "lossless (yes)" in text
    assert "acceleration of the family 2.50x as it ran, 2.86x with each stage" in text
    assert "7.50x" in text
    assert "the whole budget of the member trained alone" in text


def test_an_identical_run_does_not_pass_as_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    curves = {
        "tiny": [(50, 0.3), (100, 0.3)]
    }  # a plateau: the whole budget alone is twice what it took
    alike = [make_run(tmp_path / mode, mode, curves) for mode in ("chain", "individual")]
    result = report(alike)
    (tiny,) = result.comparisons[0].members
    assert (tiny.acceleration, tiny.individual_first_flops, tiny.reached_flops) == (2.0, 50, 50)
    assert "before the end; saved up to there: tiny 1.00x" in "\n".join(_lines(result, capsys))


def test_importing_it_is_light() -> None:
    code = """
import sys
import compt.report.build
sys.exit(bool({'torch', 'matplotlib', 'rich'} & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_left_out_of_the_data_is_said_once(folders: list[Path]) -> None:
    lacks = {"total": 64, "samples": {"without a caption": 40}, "parts": {}, "num_read": None}
    whole = {"total": 64, "samples": {}, "parts": {}, "num_read": None}
    for name in ("01_tiny", "02_small"):
        change(folders[0] / name / "manifest.json", left_out={"train": lacks, "val": whole})
    change(folders[1] / "02_small" / "manifest.json", left_out={"train": lacks})
    result = report(folders)
    said = "data of 'train': 40 of 64 left out or replaced: 40 without a caption."
    assert [note for note in result.notes if "left out" in note] == [
        f"chain: {said}",
        f"alone, small: {said}",
    ]
    members = result.to_dict()["runs"][0]["members"]
    assert members[0]["left_out"] == {"train": lacks, "val": whole}
